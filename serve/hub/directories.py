"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from actors.errors import UserError


@contextlib.contextmanager
def whole_directory(path: Path, replaceable: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """A temporary directory beside ``path`` to fill; when the block ends well it takes the place of ``path``.

    If the block raises, ``path`` stays what it was and nothing is left over.

    Args:
        path: absent, or an empty directory, or one that is ``replaceable``.
        replaceable: whether what is at ``path`` may go; None: it may not.

    Raises:
        UserError: there is something at ``path`` already, or nothing can be written there.
    """
    occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied and not (path.is_dir() and replaceable and replaceable(path)):
        raise UserError(f"{path} exists already, and what is there is not replaced: choose another --to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from error
    filled, old = temporary / "new", temporary / "old"
    try:
        filled.mkdir()
        yield filled
        if path.exists():
            path.rename(old)
        filled.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
