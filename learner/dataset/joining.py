"""Joining: whole episodes of the fragments that a run flies, for those who keep them."""

from __future__ import annotations

import dataclasses
import itertools
import secrets

import numpy as np

from actors import trees
from actors.episode import EpisodeBatch
from actors.policy import Policy
from actors.trees import Array
from learner.dataset.part import public_name
from learner.dataset.writer import DatasetWriter


class EpisodeJoiner:
    """Holds fragments of episodes until these have ended."""

    def __init__(self) -> None:
        self._begun: dict[int, list[EpisodeBatch]] = {}
        """The fragments so far of the episode that goes on in a slot, by slot."""

    def whole(self, batch: EpisodeBatch, slots: Array) -> list[EpisodeBatch]:
        """The episodes that end in a batch, whole, without notes and memories.

        Args:
            batch: fragments, those of a slot together and in order, that go on where the batch before stopped.
            slots: [E]: the slot of each.
        """
        batch = dataclasses.replace(batch, notes={}, memories={})
        done = batch.terminated | batch.truncated
        bounds = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), batch.num_segments]
        episodes = []
        for start, stop in itertools.pairwise(bounds):
            if start == stop:
                continue
            slot = int(slots[start])
            if slot in self._begun:
                self._begun[slot].append(_copied(batch.segments(start, start + 1)))
                if done[start]:
                    episodes.append(_joined(self._begun.pop(slot)))
                start += 1  # noqa: PLW2901
            end = stop if done[stop - 1] else max(start, stop - 1)
            if start < end:
                episodes.append(batch.segments(start, end))
            if end < stop:
                self._begun[slot] = [_copied(batch.segments(end, stop))]
        return episodes


class EpisodeRecorder:
    """Adds the whole episodes that an actor of a run flies to a dataset; each actor has one of its own.

    Args:
        location: of the dataset.
        preset: what the run was started with, for the dataset.
    """

    def __init__(self, location: str, preset: str | None) -> None:
        self._location, self._preset = location, preset
        self._joiner = EpisodeJoiner()
        self._writer: DatasetWriter | None = None

    def add(self, batch: EpisodeBatch, slots: Array, policy: Policy) -> None:
        """Note what was flown; an episode that goes on is kept when it has ended: see ``actors.actor.Recorder``.

        Raises:
            OSError: it could not be written.
        """
        spec = policy.spec
        if self._writer is None:
            name = f"actor-{secrets.token_hex(6)}"
            self._writer = DatasetWriter(self._location, spec.env_id, spec.observation, spec.action, name)
        flown = dataclasses.replace(batch, actions=policy.distribution.flyable(batch.actions))
        source = {
            "policy": public_name(self._location.removesuffix("/recorded")),
            "preset": self._preset,
            "training": True,
        }
        for episodes in self._joiner.whole(flown, slots):
            self._writer.add(episodes, source)

    def close(self) -> None:
        """Write what is whole and not yet written.

        Raises:
            OSError: it could not be written.
        """
        if self._writer:
            self._writer.close()


def _copied(fragment: EpisodeBatch) -> EpisodeBatch:
    """A fragment without the memory of the batch that it was cut from."""
    return EpisodeBatch(**trees.map_leaves(np.array, vars(fragment)))


def _joined(fragments: list[EpisodeBatch]) -> EpisodeBatch:
    """One episode of its fragments."""
    together, first, last = EpisodeBatch.concatenate(fragments), fragments[0], fragments[-1]
    return dataclasses.replace(
        last,
        observations=together.observations,
        actions=together.actions,
        rewards=together.rewards,
        segment_lengths=np.array([together.num_steps], np.int32),
        earlier=first.earlier,
    )
