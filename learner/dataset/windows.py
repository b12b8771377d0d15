"""Windows of recorded episodes, as columns that a learner takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from actors import trees
from actors.distribution import Distribution
from actors.episode import EpisodeBatch
from actors.masks import allowed
from actors.spaces import Space
from actors.spec import PolicySpec
from actors.trees import Array, Tree
from learner.dataset.dataset import Dataset
from learner.memory.packing import as_learned

STEPS_OF_STATISTICS = 2**17
"""Steps that statistics of observations are taken of, spread over all that are recorded."""
_CHUNK = 2**14


class Reader(Protocol):
    """Makes columns of recorded steps."""

    def read(self, episodes: Array, firsts: Array) -> dict[str, Array]:
        """Columns, [W, …] each, of W episodes [W] int64, each from its step ``firsts`` [W] int64 on."""


class Windows:
    """Reads windows of ``length`` consecutive steps, never of two episodes; what an episode's end leaves is empty.

    Args:
        dataset: the episodes.
        spec: of the policy that learns from them.
        distribution: of that policy.
        length: steps of a window.
    """

    def __init__(self, dataset: Dataset, spec: PolicySpec, distribution: Distribution, length: int) -> None:
        self._dataset, self._spec, self._distribution, self._length = dataset, spec, distribution, length

    def read(self, episodes: Array, firsts: Array) -> dict[str, Array]:
        """The windows of W episodes that begin at their steps ``firsts``, by name, [W, length, …] each.

        observations are as networks take them, before they are standardised; actions as the policy's distribution
        samples them; previous_actions those of the step before, as networks see them, zeros at an episode's first step;
        returns_to_go the sums of rewards from each step to the episode's end; is_step whether there is one; allows what
        a mask allows.

        Args:
            episodes: [W] int64, of the dataset.
            firsts: [W] int64, each less than that episode's length.
        """

        def of_part(part: int, mine: Array) -> tuple[Array, dict[str, Array]]:
            lengths = np.minimum(self._dataset.lengths[episodes[mine]] - firsts[mine], self._length)
            rows = np.repeat(mine * self._length, lengths) + counted(lengths)
            return rows, self._of_part(part, episodes[mine], firsts[mine], lengths)

        columns = from_parts(self._dataset, episodes, len(episodes) * self._length, of_part)
        return {
            name: column.reshape(len(episodes), self._length, *column.shape[1:]) for name, column in columns.items()
        }

    def _of_part(self, part: int, episodes: Array, firsts: Array, lengths: Array) -> dict[str, Array]:
        """The steps of windows of these lengths, all in one part, laid end to end."""
        dataset, batch = self._dataset, self._dataset.part(part)
        left = dataset.lengths[episodes] - firsts
        begins, places = dataset.start[episodes] + firsts, counted(lengths)
        rows = np.repeat(begins, lengths) + places
        seen, _ = observed(self._spec.observation, batch, begins, lengths, firsts, dataset.segment[episodes])
        to_come = sums_to_come(batch.rewards, begins, left)[np.repeat(np.cumsum(left) - left, lengths) + places]
        is_first = np.repeat(firsts, lengths) + places == 0
        before = trees.rows(batch.actions, np.where(is_first, rows, rows - 1))
        steps = {
            "observations": as_learned(self._spec.seen, seen),
            "actions": self._distribution.as_sampled(trees.rows(batch.actions, rows)),
            "previous_actions": np.where(is_first[:, None], np.float32(0), self._spec.action.encode(before)),
            "returns_to_go": to_come,
            "is_step": np.ones(len(rows), bool),
        }
        if self._spec.is_masked:
            steps["allows"] = allowed(seen, self._spec)
        return steps

    def observed(self) -> Iterator[Array]:
        """Encoded observations, [n, inputs] a chunk, of steps that are spread evenly over all episodes."""
        dataset = self._dataset
        count = min(dataset.num_steps, STEPS_OF_STATISTICS)
        ends = np.cumsum(dataset.lengths)
        for chosen in np.array_split(
            np.linspace(0, dataset.num_steps - 1, count).astype(np.int64), -(-count // _CHUNK)
        ):
            episodes = np.searchsorted(ends, chosen, side="right")
            firsts = chosen - (ends - dataset.lengths)[episodes]
            one = Windows(dataset, self._spec, self._distribution, 1)
            yield one.read(episodes, firsts)["observations"][:, 0]


def from_parts(
    dataset: Dataset, episodes: Array, rows: int, read: Callable[[int, Array], tuple[Array, dict[str, Array]]]
) -> dict[str, Array]:
    """Columns of so many rows, by name, filled from each part that holds some of these episodes; zeros elsewhere.

    Args:
        dataset: the episodes.
        episodes: [W] int64, of the dataset.
        rows: of a column.
        read: for a part, and which of the W are in it, the rows that these fill and the columns' values there.
    """
    columns: dict[str, Array] = {}
    in_part = dataset.in_part[episodes]
    for part in np.unique(in_part):
        places, found = read(int(part), np.flatnonzero(in_part == part))
        for name, values in found.items():
            if name not in columns:
                columns[name] = np.zeros((rows, *values.shape[1:]), values.dtype)
            columns[name][places] = values
    return columns


def observed(
    space: Space, batch: EpisodeBatch, begins: Array, lengths: Array, firsts: Array, segments: Array
) -> tuple[Tree, Tree]:
    """What was seen in windows of a part, laid end to end, and after each if it is its episode's last: all frames.

    Args:
        space: of observations.
        batch: the part.
        begins: [W]: the first row of each window.
        lengths: [W]: steps of each.
        firsts: [W]: steps of the episode before it.
        segments: [W]: of its episode.
    """
    newest = trees.rows(batch.observations, np.repeat(begins, lengths) + counted(lengths))
    final = trees.rows(batch.final_observations, segments)
    earlier: Tree = {}
    if space.has_frames:
        earlier = _frames_before(batch.observations, batch.earlier, begins, firsts, segments)
    return space.restored(newest, final, earlier, lengths)


def counted(lengths: Array) -> Array:
    """0, 1, … for each of these lengths, laid end to end."""
    return np.asarray(np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths))


def sums_to_come(rewards: Array, begins: Array, lengths: Array) -> Array:
    """Σ_{k ≥ t} r of ranges of rewards, to the end of each range: laid end to end, float32.

    Args:
        rewards: [T].
        begins: [W]: the first row of each range.
        lengths: [W]: rows of each.
    """
    chosen = rewards[np.repeat(begins, lengths) + counted(lengths)].astype(np.float64)
    sums: Array = np.cumsum(chosen[::-1])[::-1]
    ends = np.cumsum(lengths)
    after = np.append(sums, 0.0)[ends]  # of the ranges behind each
    return np.asarray(sums - np.repeat(after, lengths), np.float32)


def _frames_before(newest: Any, earlier: Any, begins: Array, firsts: Array, segments: Array) -> Any:
    """[W, k - 1, *frame]: the frames before each window's first step, where frames are seen together."""
    if isinstance(earlier, dict):
        return {name: _frames_before(newest[name], part, begins, firsts, segments) for name, part in earlier.items()}
    count = earlier.shape[1]
    back = np.arange(-count, 0)
    in_episode = firsts[:, None] + back >= 0
    flown = newest[np.where(in_episode, begins[:, None] + back, begins[:, None])]
    kept = earlier[segments[:, None], np.where(in_episode, 0, count + back + firsts[:, None])]
    return np.where(in_episode.reshape(*in_episode.shape, *[1] * (newest.ndim - 1)), flown, kept)
