"""Tensors from files of strangers, read by what makes nothing but tensors."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actors.episode import Array
from actors.errors import UserError
from actors.spec import MOST_BYTES

if TYPE_CHECKING:
    import torch

_PICKLE_LIMIT = 4 * 1024**2
"""Bytes of the description of tensors in a file of torch's, which torch reads step by step."""
_PICKLES = 5
"""Before torch 1.6 this many came before a file's numbers, of which the fourth describes the tensors."""


def read_torch(content: bytes, name: str, kind: str) -> dict[str, torch.Tensor]:
    """The tensors of a state dictionary that ``torch.save`` wrote. Nothing is unpickled but tensors and containers.

    Args:
        content: of the file.
        name: what errors call the file.
        kind: what a file of that size is none of.

    Raises:
        UserError: it holds something else, or more than a policy ever has.
        Exception: of torch, for a file that is damaged or would make other objects.
    """
    import torch  # here: a bad request is answered before torch is loaded

    if _description_bytes(content, name, kind) > _PICKLE_LIMIT:
        raise UserError(f"{name} describes its tensors in more than {_PICKLE_LIMIT:,} bytes")
    state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{name} holds something other than a dictionary of tensors")
    return state


def as_weights(state: Mapping[str, torch.Tensor], name: str, kind: str) -> dict[str, Array]:
    """Tensors as a network's weights: float32, in numpy.

    Raises:
        UserError: one is no weight, or they have more than a policy ever has.
    """
    import torch

    for key, value in state.items():
        if not (isinstance(key, str) and value.is_floating_point() and value.layout == torch.strided):
            raise UserError(f"{name} holds {str(key)[:100]!r} as {value.dtype}, which is no weight of a network")
    if sum(value.numel() for value in state.values()) * 4 > MOST_BYTES:  # a view can be larger than what it views
        raise UserError(f"{name} has tensors of more than {MOST_BYTES:,} bytes: this is no {kind}")
    return {key: value.detach().to(torch.float32).numpy().copy() for key, value in state.items()}


def _description_bytes(content: bytes, name: str, kind: str) -> int:
    """How many bytes of a file of torch's describe its tensors, as opposed to holding their numbers; those beyond the
    limit are not all counted.

    Raises:
        UserError: it unpacks to more than a policy ever has.
    """
    if not content.startswith(b"PK\x03\x04"):  # as torch tells its format since 1.6, a zip file, from the one before
        return _bytes_of_pickles(io.BytesIO(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise UserError(f"{name} unpacks to more than {MOST_BYTES:,} bytes: this is no {kind}")
    return max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0)


def _bytes_of_pickles(file: io.BytesIO) -> int:
    for _ in range(_PICKLES):
        for _, _, position in pickletools.genops(file):
            if (position or 0) > _PICKLE_LIMIT:
                return _PICKLE_LIMIT + 1
    return file.tell()
