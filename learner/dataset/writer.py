"""DatasetWriter: adds whole episodes to a dataset, to which others may be adding at the same time."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np

from actors import trees
from actors.episode import EpisodeBatch
from actors.errors import UserError
from actors.spaces import Space
from actors.trees import Array
from learner.dataset.dataset import PARTS, part_name
from learner.dataset.form import DATASET_FILE, Form, kept_actions, read_form
from learner.dataset.part import Source, part_file
from learner.keeping.storage import Storage, open_storage

_PART_BYTES = 16 * 1024**2
"""A part is written when it has more."""


class DatasetWriter:
    """One of those who write to a dataset: whole episodes go in, whole files come out.

    The dataset is made if there is none. Of a writer that is killed all parts stay that it had written.

    Args:
        location: of the dataset: a path, s3://… or gs://…
        env_id: the Gymnasium id of what was flown.
        observation: what was seen.
        action: what was done, as the environment takes it.
        writer: a name that no other writer to this dataset has or had; the names of its parts begin with it.

    Raises:
        UserError: the dataset is of another environment or of other spaces, or the name is taken or none for a file.
        OSError: it cannot be written there.
    """

    def __init__(self, location: str | Path, env_id: str, observation: Space, action: Space, writer: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", writer):
            raise UserError(f"a writer's name must be of letters, digits, dots and dashes, not {writer!r}")
        storage = open_storage(location)
        self.form = created(storage, Form(env_id, observation, action))
        self._parts = storage.within(PARTS)
        taken = re.compile(rf"{re.escape(writer)}-\d{{5,}}\.safetensors")
        if any(map(taken.fullmatch, self._parts.names())):
            raise UserError(f"{storage} has episodes of a writer {writer!r} already: give this one another name")
        self._writer, self._written = writer, 0
        self._waiting: list[tuple[EpisodeBatch, Source]] = []
        self._bytes = 0

    def add(self, batch: EpisodeBatch, source: Source) -> None:
        """Add whole episodes that one source flew; their notes and memories are not kept.

        Args:
            batch: actions as the environment takes them, not as a distribution samples them: see ``flyable``.
            source: who flew: plain JSON.

        Raises:
            ValueError: an episode has no end, or an action is none of the environment's.
            OSError: a part could not be written.
        """
        if not batch.num_segments:
            return
        if not (batch.terminated | batch.truncated).all():
            raise ValueError("only whole episodes are recorded, and a segment has no end")
        outside = self.form.action.outside(batch.actions)
        if any(leaf.any() for _, leaf in trees.leaves(outside)):
            raise ValueError(f"actions must be as {self.form.env_id} takes them: {self.form.action.in_words()}")
        for piece in _pieces(self._kept(batch)):
            self._waiting.append((piece, source))
            self._bytes += piece.num_bytes
            if self._bytes > _PART_BYTES:
                self.flush()

    def _kept(self, batch: EpisodeBatch) -> EpisodeBatch:
        """What is kept of a batch, in the dataset's types."""
        space = self.form.observation
        return EpisodeBatch(
            **{
                **vars(batch),
                "observations": space.copied(batch.observations),
                "final_observations": space.copied(batch.final_observations),
                "actions": kept_actions(self.form.action, batch.actions),
                "notes": {},
                "memories": {},
            }
        )

    def flush(self) -> None:
        """Write what waits as a part of its own.

        Raises:
            OSError: it could not be written; it waits on.
        """
        if not self._waiting:
            return
        sources: list[Source] = []
        source: list[Array] = []
        for batch, flown_by in self._waiting:
            if flown_by not in sources:
                sources.append(flown_by)
            source.append(np.full(batch.num_segments, sources.index(flown_by), np.int32))
        batch = EpisodeBatch.concatenate([batch for batch, _ in self._waiting])
        data = part_file(self.form, batch, np.concatenate(source), sources)
        self._parts.write(part_name(self._writer, self._written), data)
        self._written += 1
        self._waiting, self._bytes = [], 0

    def close(self) -> None:
        """Write what still waits."""
        self.flush()


def created(storage: Storage, form: Form) -> Form:
    """The form of the dataset at a place, which is made with this one if there is none.

    Raises:
        UserError: there is one of another environment or of other spaces.
        OSError: it cannot be written.
    """
    if DATASET_FILE not in storage.names():
        storage.write(DATASET_FILE, form.json())
    found = read_form(storage)  # another writer's, perhaps, who came first
    found.require_same(form, storage)
    return found


def _pieces(batch: EpisodeBatch) -> list[EpisodeBatch]:
    """A batch cut between episodes, so that a part is not much larger than it should be."""
    starts = np.cumsum(batch.segment_lengths) - batch.segment_lengths
    cuts = np.flatnonzero(np.diff(starts * (batch.num_bytes / batch.num_steps) // _PART_BYTES)) + 1
    return [batch.segments(start, stop) for start, stop in itertools.pairwise([0, *cuts.tolist(), batch.num_segments])]
