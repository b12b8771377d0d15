"""Checkpoints: a directory each, complete or absent, whose damage is noticed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from actors.episode import Array
from actors.errors import UserError

log = logging.getLogger("touchdown")

_FILE = "state.safetensors"


def save_checkpoint(root: Path, number: int, arrays: dict[str, Array], counters: dict[str, Any], keep: int) -> Path:
    """Write checkpoint ``number`` under ``root`` atomically; then ``keep`` stay, and none with a higher number.

    A higher number is of a damaged one that was passed over, or of a future that the run went back from.

    A checkpoint is ``<number>/state.safetensors``, the counters in its header, and its SHA-256 beside it.

    Raises:
        OSError: it could not be written; earlier checkpoints are untouched.
    """
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=".writing-"))
    try:
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = safetensors.numpy.save(contiguous, metadata={"counters": json.dumps(counters)})
        for name, content in ((_FILE, data), (f"{_FILE}.sha256", hashlib.sha256(data).hexdigest().encode())):
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        final = root / f"{number:08d}"
        shutil.rmtree(final, ignore_errors=True)
        temporary.chmod(0o755)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    checkpoints = _checkpoints(root)
    position = checkpoints.index(final)
    for old in (*checkpoints[: max(0, position + 1 - keep)], *checkpoints[position + 1 :]):
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(root: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The newest checkpoint that is whole: its arrays and counters. A damaged one is named in the log and passed over.

    Raises:
        UserError: there is no checkpoint, or none is whole.
    """
    checkpoints = _checkpoints(root)
    for path in reversed(checkpoints):
        try:
            data = (path / _FILE).read_bytes()
            if hashlib.sha256(data).hexdigest() != (path / f"{_FILE}.sha256").read_text().strip():
                raise ValueError("its contents do not match their checksum")
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return safetensors.numpy.load(data), json.loads(header["__metadata__"]["counters"])
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, error)
    found = f"all {len(checkpoints)} are damaged" if checkpoints else "there is none"
    raise UserError(f"no readable checkpoint under {root}: {found}")


def has_checkpoint(root: Path) -> bool:
    """Whether there is anything to go on from, whole or damaged."""
    return bool(_checkpoints(root))


def _checkpoints(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[0-9]*") if path.is_dir()) if root.is_dir() else []
