"""Dataset: recorded episodes, of which only what is asked for is read."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from actors.episode import EpisodeBatch
from actors.errors import UserError
from actors.files import json_text
from actors.spaces import Space
from actors.trees import Array
from learner.dataset.form import Form, read_form
from learner.dataset.part import Header, Source, read_episodes, read_header, read_part
from learner.keeping.storage import Disk, Storage, open_storage

PARTS = "parts"
_PART = re.compile(r"(?P<writer>.+)-(?P<number>\d{5,})\.safetensors")
_AT_ONCE = 8
"""Files that are opened side by side: an object store answers each after a while."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """E recorded episodes: what they are of, a few numbers of each, and the way to their steps."""

    location: str
    """The path or URI."""
    env_id: str
    """The Gymnasium id of the environment that was flown."""
    observation: Space
    """What was seen."""
    action: Space
    """What was done, as the environment takes it."""
    lengths: Array
    """[E] int64: steps of each episode."""
    returns: Array
    """[E] float64, undiscounted."""
    terminated: Array
    """[E] bool: it ended in a terminal state; the others were cut by a time limit."""
    source: Array
    """[E] int32: which of ``sources`` flew it."""
    in_part: Array
    """[E] int64: the part that holds it: see ``part``."""
    start: Array
    """[E] int64: its first step's row in that part."""
    segment: Array
    """[E] int64: its row among the episodes of that part."""
    sources: list[Source]
    """Who flew: plain JSON such as ``{"policy": "runs/a", "version": 40}``, or ``{"person": true}``."""
    parts: list[str]
    """The names of its parts' files."""
    _headers: list[Header]
    _opened: dict[int, EpisodeBatch] = dataclasses.field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}}  # another process opens files of its own

    @property
    def form(self) -> Form:
        """What all its episodes are of."""
        return Form(self.env_id, self.observation, self.action)

    @property
    def num_episodes(self) -> int:
        """E, the number of episodes."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """How many steps all episodes have."""
        return int(self.lengths.sum())

    @functools.cached_property
    def asked(self) -> float:
        """The return to ask for where nobody says another: the mean of the best tenth of the episodes."""
        best = np.sort(self.returns)[-math.ceil(0.1 * self.num_episodes) :]
        return float(best.mean())

    @property
    def fingerprint(self) -> Array:
        """What tells these episodes from others, wherever they are, [3] int64: how many they are and how many steps
        they have, and a checksum of their lengths and returns."""
        checksum = zlib.crc32(self.returns.tobytes(), zlib.crc32(self.lengths.tobytes()))
        return np.array([self.num_episodes, self.num_steps, checksum])

    def require_same(self, fingerprint: Array) -> None:
        """Make sure that these are the episodes of a fingerprint.

        Raises:
            UserError: they are others.
        """
        if not np.array_equal(fingerprint, self.fingerprint):
            raise UserError(
                f"the run learned from {int(fingerprint[0]):,} episodes of {int(fingerprint[1]):,} steps, and "
                f"{self.location} has {self.num_episodes:,} of {self.num_steps:,}, not the same ones: it goes on only "
                "with what it began with; begin another run, maybe with --init-from"
            )

    def summary(self) -> dict[str, Any]:
        """What a policy that learned from it says of it, as plain JSON."""
        returns = {"least": self.returns.min(), "mean": self.returns.mean(), "most": self.returns.max()}
        return {
            "episodes": self.num_episodes,
            "steps": self.num_steps,
            "returns": {name: round(float(value), 6) for name, value in returns.items()},
        }

    def best(self, share: float) -> Dataset:
        """That share of its episodes, those of the highest returns; one at least."""
        count = max(1, round(share * self.num_episodes))
        chosen = np.sort(np.argsort(-self.returns, kind="stable")[:count])
        columns = ("lengths", "returns", "terminated", "source", "in_part", "start", "segment")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in columns})

    def part(self, index: int) -> EpisodeBatch:
        """The episodes of one part, its columns read-only views of its file, of which only rows that are used are read.

        Actions are as the environment takes them, in the smallest type that holds them; there are neither notes nor
        memories. The first time the whole file is read, to check it.

        Raises:
            UserError: it is not what was written.
            OSError: the storage does not answer.
        """
        if index not in self._opened:
            name = self.parts[index]
            storage = open_storage(self.location).within(PARTS)
            with _blamed(storage, self.parts, name):
                self._opened[index] = read_part(_mapped(storage, name), self._headers[index], self.form)
        return self._opened[index]


def open_dataset(location: str | Path) -> Dataset:
    """The dataset in a directory: a path, s3://… or gs://…; parts that are written later are not in it.

    Only numbers of whole episodes are read, so that it may be much larger than memory.

    Raises:
        UserError: there is none, it is empty, damaged, or of another version of the format.
        OSError: the storage does not answer.
    """
    storage = open_storage(location)
    form = read_form(storage)
    within = storage.within(PARTS)
    names = part_names(within)
    if not names:
        raise UserError(f"the dataset in {storage} is empty: it has no parts; record some episodes to it")

    def read(name: str) -> tuple[Header, dict[str, Array]]:
        with _blamed(within, names, name), within.open(name) as file:
            header = read_header(file, form)
            return header, read_episodes(file, header)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        headers, episodes = zip(*pool.map(read, names), strict=True)
    sources, places = _joined_sources([header.sources for header in headers])
    lengths = [columns["segment_lengths"].astype(np.int64) for columns in episodes]
    return Dataset(
        str(storage),
        form.env_id,
        form.observation,
        form.action,
        lengths=np.concatenate(lengths),
        returns=np.concatenate([columns["episode_returns"] for columns in episodes]),
        terminated=np.concatenate([columns["terminated"] for columns in episodes]),
        source=np.concatenate([where[columns["source"]] for where, columns in zip(places, episodes, strict=True)]),
        in_part=np.repeat(np.arange(len(names)), [len(each) for each in lengths]),
        start=np.concatenate([np.cumsum(each) - each for each in lengths]),
        segment=np.concatenate([np.arange(len(each)) for each in lengths]),
        sources=sources,
        parts=names,
        _headers=[*headers],
    )


def part_names(storage: Storage) -> list[str]:
    """The names of the parts in a directory, sorted, none of a writer's missing among its first.

    Raises:
        UserError: one is missing, or has no part's name.
    """
    names = [name for name in storage.names() if name.endswith(".safetensors") and not name.startswith(".")]
    following: dict[str, int] = {}
    for name in sorted(names, key=lambda name: (len(name), name)):
        match = _PART.fullmatch(name)
        if not match:
            raise UserError(f"{storage}/{name} has not the name of a part, <writer>-<number>.safetensors: remove it")
        writer = match["writer"]
        number = following.get(writer, 0)
        if name != part_name(writer, number):
            missing = part_name(writer, number)
            raise UserError(f"{storage}/{missing} is missing: record again, or {_in_its_place(names, missing)}")
        following[writer] = number + 1
    return names


def part_name(writer: str, number: int) -> str:
    """The name of a writer's part; numbers count from 0."""
    return f"{writer}-{number:05d}.safetensors"


@contextlib.contextmanager
def _blamed(storage: Storage, names: list[str], name: str) -> Iterator[None]:
    """Errors of one part name it, and say what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{storage}/{name} was removed: open the dataset again") from error
    except UserError as error:
        raise UserError(
            f"{storage}/{name} is damaged: {error}; record again, or {_in_its_place(names, name)}"
        ) from error


def _in_its_place(names: list[str], name: str) -> str:
    """What to do without a part: a writer's parts are numbered without a hole, but in any order."""
    writer = name.rpartition("-")[0]
    last = max((it for it in names if it.rpartition("-")[0] == writer), key=lambda it: (len(it), it))
    if last == name:
        return "remove that file: the others are whole"
    return f"move {last} there, the last of its writer: the others are whole"


def _mapped(storage: Storage, name: str) -> Array:
    """A file's bytes, [size] uint8, mapped into memory: they take none until they are read, nor an open file."""
    import pyarrow  # here: to import it takes a third of a second

    def mapped(path: str | Path) -> Array:
        with pyarrow.memory_map(str(path)) as file:
            return np.frombuffer(file.read_buffer(), np.uint8)

    if isinstance(storage, Disk):
        return mapped(storage.path / name)
    descriptor, path = tempfile.mkstemp(suffix=f"-{name}")  # what memory has no room for is left on this disk
    try:
        with os.fdopen(descriptor, "wb") as copy:
            copy.write(storage.read(name))
        return mapped(path)
    finally:
        os.unlink(path)  # it is there for as long as it is mapped


def _joined_sources(lists: list[list[dict[str, Any]]]) -> tuple[list[Source], list[Array]]:
    """Sources of all parts, each once, and where among them each part's are."""
    places: dict[str, int] = {}
    joined: list[Source] = []
    of_parts = []
    for sources in lists:
        here = []
        for source in sources:
            text = json_text(source, indent=None)
            if text not in places:
                places[text] = len(joined)
                joined.append(source)
            here.append(places[text])
        of_parts.append(np.array(here, np.int32))
    return joined, of_parts
