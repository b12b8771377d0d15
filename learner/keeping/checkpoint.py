"""Checkpoints: a directory each, complete or absent, whose damage is noticed."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from actors.episode import Array
from actors.errors import UserError
from learner.keeping.storage import Storage

log = logging.getLogger("touchdown")

_FILE = "state.safetensors"
_DAMAGE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""Errors of reading a checkpoint that mean it is damaged, not that the storage is away."""


def save_checkpoint(
    storage: Storage, number: int, arrays: dict[str, Array], counters: dict[str, Any], keep: int
) -> None:
    """Write checkpoint ``number``; then ``keep`` stay, and none with a higher number.

    A higher number is of a damaged one that was passed over, or of a future that the run went back from.

    A checkpoint is ``<number>/state.safetensors``, the counters in its header, and its SHA-256 beside it.

    Raises:
        OSError: it could not be written; earlier checkpoints are untouched.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = safetensors.numpy.save(contiguous, metadata={"counters": json.dumps(counters)})
    name = f"{number:08d}"
    storage.write_directory(name, {_FILE: data, f"{_FILE}.sha256": hashlib.sha256(data).hexdigest().encode()})
    checkpoints = _checkpoints(storage)
    position = checkpoints.index(name)
    for old in (*checkpoints[: max(0, position + 1 - keep)], *checkpoints[position + 1 :]):
        storage.remove(old)


def load_checkpoint(storage: Storage) -> tuple[dict[str, Array], dict[str, Any]]:
    """The newest checkpoint that is whole: its arrays and counters. A damaged one is named in the log and passed over.

    Raises:
        UserError: there is no checkpoint, or none is whole.
        OSError: the storage does not answer: who passed over a good checkpoint then would lose it.
    """
    checkpoints = _checkpoints(storage)
    for name in reversed(checkpoints):
        try:
            data = storage.read(f"{name}/{_FILE}")
            if hashlib.sha256(data).hexdigest() != storage.read(f"{name}/{_FILE}.sha256").decode().strip():
                raise ValueError("its contents do not match their checksum")
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return safetensors.numpy.load(data), json.loads(header["__metadata__"]["counters"])
        except (*_DAMAGE, ValueError, KeyError, safetensors.SafetensorError) as error:
            log.warning("checkpoint %s/%s is damaged (%s); trying the one before", storage, name, error)
    found = f"all {len(checkpoints)} are damaged" if checkpoints else "there is none"
    raise UserError(f"no readable checkpoint under {storage}: {found}")


def has_checkpoint(storage: Storage) -> bool:
    """Whether there is anything to go on from, whole or damaged."""
    return bool(_checkpoints(storage))


def _checkpoints(storage: Storage) -> list[str]:
    return [name for name in storage.names() if name.isdigit()]
