"""EpisodeBatch: experience, in columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.errors import NonFiniteError

Array = npt.NDArray[Any]

_PER_STEP = ("observations", "actions", "rewards", "log_probs")
_OF_ANY_RANK = ("observations", "actions", "final_observations")
_PER_SEGMENT = ("segment_lengths", "final_observations", "terminated", "truncated", "policy_version")
_PER_EPISODE = ("episode_returns", "episode_lengths")
_FINITE = ("observations", "actions", "rewards", "log_probs", "final_observations")


@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """Whole episodes, or consecutive fragments of them ("segments"), laid end to end: T steps in E segments.

    There is no padding and no Python object per step. The columns are contiguous numpy arrays, so that Ray moves
    them without a copy. Shapes and finiteness are checked here, once; nothing downstream checks again.

    Raises:
        ValueError: a column's shape does not fit the others.
        NonFiniteError: a column holds a NaN or an infinity.
    """

    observations: Array
    """[T, *obs] of the policy's observation_dtype: o_t."""
    actions: Array
    """[T] int64 (categorical) or [T, *act] float32 (Gaussian): a_t, as sampled, before any clipping to bounds."""
    rewards: Array
    """[T] float32: r_{t+1}, unscaled."""
    log_probs: Array
    """[T] float32: log π(a_t | o_t) under the policy that flew the step."""
    segment_lengths: Array
    """[E] int32, sums to T: where segments end."""
    final_observations: Array
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

    def __post_init__(self) -> None:
        steps, segments = len(self.rewards), len(self.segment_lengths)
        for names, count, unit in ((_PER_STEP, steps, "steps"), (_PER_SEGMENT, segments, "segments")):
            for name in names:
                shape = getattr(self, name).shape
                if shape[:1] != (count,) or (len(shape) > 1 and name not in _OF_ANY_RANK):
                    raise ValueError(f"{name} has shape {shape} for {count} {unit}")
        if int(self.segment_lengths.sum()) != steps or (segments and int(self.segment_lengths.min()) < 1):
            raise ValueError(f"segment_lengths must be positive and sum to {steps}: {self.segment_lengths}")
        if self.final_observations.shape[1:] != self.observations.shape[1:]:
            raise ValueError(
                f"final_observations have shape {self.final_observations.shape[1:]}, "
                f"observations {self.observations.shape[1:]}"
            )
        finished = int(np.count_nonzero(self.terminated | self.truncated))
        if len(self.episode_returns) != finished or len(self.episode_lengths) != finished:
            raise ValueError(
                f"{finished} segments end an episode, but there are {len(self.episode_returns)} episode_returns "
                f"and {len(self.episode_lengths)} episode_lengths"
            )
        for name in _FINITE:
            if not np.isfinite(getattr(self, name)).all():
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
        return sum(getattr(self, name).nbytes for name in (*_PER_STEP, *_PER_SEGMENT, *_PER_EPISODE))

    def segments(self, start: int, stop: int) -> EpisodeBatch:
        """The segments ``start`` to ``stop`` (exclusive) as a batch of their own: views, no copies."""
        ends = np.concatenate([[0], np.cumsum(self.segment_lengths)])
        finished = np.concatenate([[0], np.cumsum(self.terminated | self.truncated)])
        slices = {
            _PER_STEP: slice(int(ends[start]), int(ends[stop])),
            _PER_SEGMENT: slice(start, stop),
            _PER_EPISODE: slice(int(finished[start]), int(finished[stop])),
        }
        return EpisodeBatch(**{name: getattr(self, name)[rows] for names, rows in slices.items() for name in names})

    @staticmethod
    def concatenate(batches: Sequence[EpisodeBatch]) -> EpisodeBatch:
        """One batch of all segments, in order. A single batch comes back as it is.

        Raises:
            ValueError: ``batches`` is empty, or their observations or actions differ in shape.
        """
        if len(batches) == 1:
            return batches[0]
        return EpisodeBatch(
            **{
                name: np.concatenate([getattr(batch, name) for batch in batches])
                for name in (*_PER_STEP, *_PER_SEGMENT, *_PER_EPISODE)
            }
        )
