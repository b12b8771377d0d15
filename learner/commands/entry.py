"""What a command does before all else, and before imports that take seconds: it needs next to none itself."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

_SPELT = {"–": "-", "—": "-", "−": "-", "±": "+/-", "×": "x", "…": "...", "’": "'"}


def begin(prog: str) -> None:
    """Make output safe, answer ``--version``, and tell who watches that the program starts.

    Args:
        prog: the command as a user types it.
    """
    if os.environ.get("RAY_ADDRESS", "").strip() not in ("", "local"):
        # How long Ray does without a head that is lost, for one that takes up its state; heeded from its import on.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    codecs.register_error("touchdown", _spell)
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    options = sys.argv[1:]
    if "--version" in options:
        from importlib.metadata import version

        print(f"touchdown {version('touchdown')}")
        sys.exit()
    if sys.stderr.isatty() and not {"-h", "--help"} & set(options):
        print(f"{prog}: starting", file=sys.stderr, flush=True)


def _lasting(stream: TextIO | None) -> TextIO:
    """The same stream, to which any text can be written at any time."""
    if not isinstance(stream, io.TextIOWrapper):  # closed, as by >&-
        return open(os.devnull, "w", encoding="utf-8", errors="touchdown")
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_LastingFile(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "touchdown",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _LastingFile(io.FileIO):
    """A file that drops what it cannot take: a pipe whose reader has left, a terminal that is gone, a full disk."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def _spell(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, in ASCII: a dash for a dash, and a letter by its number."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    spelt = (_SPELT.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lacking)
    return "".join(spelt), error.end
