"""EpisodeBatch: experience, in columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors import trees
from actors.errors import NonFiniteError
from actors.trees import Array, Tree

__all__ = ["Array", "EpisodeBatch"]

_PER_STEP = ("observations", "actions", "rewards", "notes")
_PER_SEGMENT = (
    *("segment_lengths", "final_observations", "earlier", "memories"),
    *("terminated", "truncated", "policy_version"),
)
_PER_EPISODE = ("episode_returns", "episode_lengths")
_FLAT = ("rewards", "segment_lengths", "terminated", "truncated", "policy_version")
_FINITE = ("observations", "actions", "rewards", "notes", "final_observations", "memories")


@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """Whole episodes, or consecutive fragments of them ("segments"), laid end to end: T steps in E segments.

    There is no padding and no Python object per step. The columns are contiguous numpy arrays, so that Ray moves
    them without a copy. Shapes and finiteness are checked here, once; nothing downstream checks again.

    Raises:
        ValueError: a column's shape does not fit the others.
        NonFiniteError: a column holds a NaN or an infinity.
    """

    observations: Tree
    """[T, *obs] of the policy's observation space, an array or a tree of arrays: o_t; of frames that are seen together
    the newest."""
    actions: Any
    """[T, …]: a_t as the policy's distribution sampled it, before any clipping to bounds, and from 0 where discrete. In
    recordings as the environment takes it, of several parts a tree."""
    rewards: Array
    """[T] float32: r_{t+1}, unscaled."""
    notes: dict[str, Array]
    """{name: [T, …]}: what the policy that flew a step noted of it: see ``Distribution.notes``."""
    segment_lengths: Array
    """[E] int32, sums to T: where segments end."""
    final_observations: Tree
    """[E, *obs], as observations: the observation after the segment's last step; the bootstrap state."""
    terminated: Array
    """[E] bool: the segment ended in a terminal state, whose value is 0."""
    truncated: Array
    """[E] bool: the segment was cut by a time limit. Neither flag: the episode goes on in a later batch."""
    policy_version: Array
    """[E] int64: the version of the policy that flew the segment."""
    episode_returns: Array
    """[finished episodes] float64: undiscounted return of each whole episode, in the order of their last segments."""
    episode_lengths: Array
    """[finished episodes] int64: steps of each whole episode."""
    earlier: Tree = dataclasses.field(default_factory=dict)
    """[E, k - 1, *frame] where frames are seen together: those before the newest, at each segment's first step; see
    ``pictures``."""
    memories: dict[str, Array] = dataclasses.field(default_factory=dict)
    """{name: [E, …]}: the policy's memory before each segment's first step; empty for one that has none."""

    def __post_init__(self) -> None:
        steps, segments = len(self.rewards), len(self.segment_lengths)
        for names, count, unit in ((_PER_STEP, steps, "steps"), (_PER_SEGMENT, segments, "segments")):
            for column in names:
                for name, leaf in trees.leaves(getattr(self, column), column):
                    if leaf.shape[:1] != (count,) or (leaf.ndim > 1 and column in _FLAT):
                        raise ValueError(f"{name} has shape {leaf.shape} for {count} {unit}")
        if int(self.segment_lengths.sum()) != steps or (segments and int(self.segment_lengths.min()) < 1):
            raise ValueError(f"segment_lengths must be positive and sum to {steps}: {self.segment_lengths}")
        trees.map_leaves(_check_alike, self.observations, self.final_observations)
        finished = int(np.count_nonzero(self.terminated | self.truncated))
        if len(self.episode_returns) != finished or len(self.episode_lengths) != finished:
            raise ValueError(
                f"{finished} segments end an episode, but there are {len(self.episode_returns)} episode_returns "
                f"and {len(self.episode_lengths)} episode_lengths"
            )
        for column in _FINITE:
            for name, leaf in trees.leaves(getattr(self, column), column):
                if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                    raise NonFiniteError(f"{name} holds a NaN or an infinity")

    @property
    def num_steps(self) -> int:
        """T, the number of steps."""
        return len(self.rewards)

    @property
    def num_segments(self) -> int:
        """E, the number of segments."""
        return len(self.segment_lengths)

    @property
    def num_bytes(self) -> int:
        """What it takes in memory and on its way, all columns together."""
        return sum(leaf.nbytes for _, leaf in trees.leaves(vars(self)))

    def segments(self, start: int, stop: int) -> EpisodeBatch:
        """The segments ``start`` to ``stop`` (exclusive) as a batch of their own: views, no copies."""
        ends = np.concatenate([[0], np.cumsum(self.segment_lengths)])
        finished = np.concatenate([[0], np.cumsum(self.terminated | self.truncated)])
        slices = {
            _PER_STEP: slice(int(ends[start]), int(ends[stop])),
            _PER_SEGMENT: slice(start, stop),
            _PER_EPISODE: slice(int(finished[start]), int(finished[stop])),
        }
        columns = {
            name: trees.map_leaves(lambda leaf, rows=rows: leaf[rows], getattr(self, name))
            for names, rows in slices.items()
            for name in names
        }
        return EpisodeBatch(**columns)

    @staticmethod
    def concatenate(batches: Sequence[EpisodeBatch]) -> EpisodeBatch:
        """One batch of all segments, in order. A single batch comes back as it is.

        Raises:
            ValueError: ``batches`` is empty, or their columns differ in names or shape.
        """
        if len(batches) == 1:
            return batches[0]
        return EpisodeBatch(**trees.concatenate([vars(batch) for batch in batches]))


def _check_alike(observations: Array, final_observations: Array) -> Array:
    if final_observations.shape[1:] != observations.shape[1:]:
        raise ValueError(
            f"final_observations have shape {final_observations.shape[1:]}, observations {observations.shape[1:]}"
        )
    return final_observations
