"""Files that are either the old ones or the new ones, never half; and JSON that any reader takes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.errors import UserError

INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
"""What JSON has no number for, by the strings that we write in their place."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write; when the block ends well it is flushed to disk and takes the place of ``path``.

    If the block raises (a full disk, say), ``path`` stays what it was and the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    try:
        temporary.touch(0o600, exist_ok=False)  # in here: a signal can come as soon as it is there
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8 whatever the locale."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(data: Any, indent: int | None = 2) -> str:
    """JSON by RFC 8259: infinities become strings, and NaNs, which are figures that nobody knows, null."""
    return json.dumps(_plain(data), indent=indent, allow_nan=False)


def _plain(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items()}
    return [_plain(value) for value in data] if isinstance(data, list | tuple) else data


def read_json(data: bytes | str, origin: str) -> Any:
    """The value of a JSON text, whoever wrote it.

    Raises:
        UserError: it is not JSON, or so deeply nested that it is nothing of ours; names ``origin``.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is damaged or not JSON: {error}") from error
