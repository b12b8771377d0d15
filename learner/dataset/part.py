"""A part: one file of whole episodes in columns, safetensors that say who flew and whether they are whole.

Its header's metadata has one entry, ``touchdown``: JSON with the SHA-256 of the file, in which the digest's own place
is taken by zeros, and the sources.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import numpy as np
import safetensors.numpy

from actors import trees
from actors.episode import EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.files import json_text, read_json
from actors.trees import Array, Tree
from learner.dataset.form import PER_EPISODE, Column, Form

_MOST_HEADER = 1024**2
_METADATA = "touchdown"
_NO_DIGEST = b"0" * 64
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"},
}
Source = Mapping[str, Any]
"""Who flew: plain JSON such as ``{"policy": "runs/a", "version": 40}``, or ``{"person": true}``."""


class _Said(msgspec.Struct):
    """The metadata of a part."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    sources: list[dict[str, Any]]


class _Tensor(msgspec.Struct):
    """What safetensors say of one column."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def public_name(location: str) -> str:
    """A place as others may read of it, in a dataset or a package: of a path that is not below here the last part."""
    path = Path(location)
    return path.name if path.is_absolute() or ".." in path.parts or location.startswith("~") else location


@dataclasses.dataclass(frozen=True)
class Header:
    """What the beginning of a part says of the rest."""

    places: dict[str, tuple[Column, int, int]]
    """The form of each column, how many rows it has, and where in the file it begins, by the column's name."""
    sources: list[dict[str, Any]]
    """Who flew."""
    digest: str
    """SHA-256 of the file, of 64 zeros in the digest's own place."""
    size: int
    """Bytes until the columns begin."""

    def column(self, name: str, data: Any, offset: int = 0) -> Array:
        """A column's view of the file's bytes from ``offset`` on."""
        column, rows, start = self.places[name]
        numbers = rows * math.prod(column.shape)
        return np.frombuffer(data, column.dtype, numbers, start - offset).reshape(rows, *column.shape)


def part_file(form: Form, batch: EpisodeBatch, source: Array, sources: list[Source]) -> bytes:
    """A part's contents.

    Args:
        form: of the dataset.
        batch: whole episodes; actions as the environment takes them.
        source: [E]: which of ``sources`` flew each.
        sources: who flew.
    """
    found = dict(trees.leaves({**vars(batch), "source": source}))
    columns = {
        name: np.ascontiguousarray(found[name], dtype=column.dtype).reshape(-1, *column.shape)
        for name, column in form.columns().items()
    }
    metadata = json_text({"sha256": _NO_DIGEST.decode(), "sources": sources}, indent=None)
    data = bytearray(safetensors.numpy.save(columns, metadata={_METADATA: metadata}))
    at = data.index(_NO_DIGEST)
    data[at : at + len(_NO_DIGEST)] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def read_header(file: BinaryIO, form: Form) -> Header:
    """The header of a part, checked against the form of its dataset and the size of its file.

    Raises:
        UserError: it does not fit them, or is none; says what is wrong, not of which file.
    """
    file_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if file_size < 8 or length > min(file_size - 8, _MOST_HEADER):
        raise UserError(f"it is cut short, or no part: its header would take {length:,} bytes")
    header = read_json(file.read(length), "its header")
    try:
        said = msgspec.convert(read_json(header.pop("__metadata__")[_METADATA], "its header"), _Said)
        found = msgspec.convert(header, dict[str, _Tensor])
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError("its header is not that of a part") from error
    columns = form.columns()
    if other := sorted({*columns} ^ {*found}):
        raise UserError(f"it is of another dataset: {other[0][:100]} is a column of only one of them")
    rows = {True: found["rewards"].shape[:1], False: found["segment_lengths"].shape[:1]}
    places, end = {}, 8 + length
    for name, tensor in sorted(found.items(), key=lambda item: item[1].data_offsets):
        column = columns[name]
        if _DTYPES.get(tensor.dtype) != column.dtype.name or tensor.shape != (*rows[column.per_step], *column.shape):
            raise UserError(f"it is of another dataset: {name} is {tensor.dtype} of shape {tensor.shape}")
        start, stop = tensor.data_offsets
        if (
            start != end - 8 - length
            or stop - start != math.prod(tensor.shape) * column.dtype.itemsize
            or not tensor.shape
        ):
            raise UserError(f"its header does not say where {name} is")
        places[name] = column, tensor.shape[0], end
        end += stop - start
    if end != file_size:
        raise UserError(f"it has {file_size:,} of {end:,} bytes")
    return Header(places, said.sources, said.sha256, 8 + length)


def read_episodes(file: BinaryIO, header: Header) -> dict[str, Array]:
    """The columns of one number an episode, by name; no others are read.

    Raises:
        UserError: they are of no whole episodes, or were not flown by the part's sources.
    """
    columns = {}
    for name in PER_EPISODE:
        column, rows, start = header.places[name]
        file.seek(start)
        columns[name] = header.column(name, file.read(rows * column.dtype.itemsize), start)
    lengths, source = columns["segment_lengths"], columns["source"]
    if not len(lengths) or int(lengths.min()) < 1 or int(lengths.sum(dtype=np.int64)) != header.places["rewards"][1]:
        raise UserError("its episodes do not sum to its steps")
    if int(source.min()) < 0 or int(source.max()) >= len(header.sources):
        raise UserError("it does not say who flew")
    if not (columns["terminated"] | columns["truncated"]).all() or not np.isfinite(columns["episode_returns"]).all():
        raise UserError("it has an episode without an end, or without a return")
    return columns


def read_part(data: Array, header: Header, form: Form) -> EpisodeBatch:
    """A part's episodes: views of its bytes, which are checked.

    Args:
        data: [bytes] uint8, the file.
        header: of the file.
        form: of its dataset.

    Raises:
        UserError: the bytes are not those that were written, or not of the dataset's spaces.
    """
    if _digest(data, header) != header.digest:
        raise UserError("its contents do not match their checksum")
    tree = trees.grown({name: header.column(name, data) for name in form.columns()})
    del tree["source"]
    for name, space in (
        ("observations", form.observation),
        ("final_observations", form.observation),
        ("actions", form.action),
    ):
        if _any_outside(space.outside(tree[name])):
            raise UserError(f"it has {name} that are not of the dataset's space")
    try:
        return EpisodeBatch(**tree, notes={}, episode_lengths=tree["segment_lengths"].astype(np.int64))
    except (ValueError, NonFiniteError) as error:
        raise UserError(error) from error


def _any_outside(outside: Tree) -> bool:
    return any(leaf.any() for _, leaf in trees.leaves(outside))


def _digest(data: Array, header: Header) -> str:
    start = bytes(data[: header.size])
    sha = hashlib.sha256(start.replace(header.digest.encode(), _NO_DIGEST, 1))
    sha.update(data[header.size :].data)
    return sha.hexdigest()
