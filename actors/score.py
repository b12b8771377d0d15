"""A policy's score while it is being flown: which episodes are still to fly, and what the others came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.episode import Array

_PARTS = 5
"""Parts that each actor flies one after another: few enough to be cheap, enough to give up early."""
_LEAST = 10
"""Episodes before which nothing is said of the rest."""


class Score:
    """Greedy episodes of one policy, handed out in parts to whoever is free, and collected in whatever order they end.

    Args:
        policy: reference to the policy, which it keeps alive.
        version: of that policy.
        seeds: one episode each.
        actors: how many fly.
        needed: the mean return without which the score is of no use; an evaluation that will not reach it is given up.
    """

    def __init__(self, policy: Any, version: int, seeds: Sequence[int], actors: int, needed: float = -math.inf) -> None:
        self.policy, self.version, self.seeds = policy, version, seeds
        self._actors, self._seconds = max(1, actors), 0.0
        size = math.ceil(len(seeds) / (_PARTS * max(1, actors)))
        self._needed = needed
        self._to_fly = [range(i, min(i + size, len(seeds))) for i in range(0, len(seeds), size)]
        self._returns = np.full(len(seeds), np.nan)
        self._lengths = np.zeros(len(seeds), np.int64)
        self._cut = np.zeros(len(seeds), bool)

    @property
    def has_parts(self) -> bool:
        """Whether there are episodes that nobody flies or has flown."""
        return bool(self._to_fly)

    def next_part(self) -> range:
        """Positions in ``seeds`` of the episodes to fly next."""
        return self._to_fly.pop(0)

    def put_back(self, part: range) -> None:
        """Take a part again whose actor died."""
        self._to_fly.insert(0, part)

    def add(self, part: range, returns: Array, lengths: Array, cut: Array, seconds: float = 0.0) -> None:
        """Note what the episodes of a part came to; gives the rest up if they cannot make up for it.

        ``seconds`` is how long an actor flew them.
        """
        self._seconds += seconds
        where = slice(part.start, part.stop)
        self._returns[where], self._lengths[where], self._cut[where] = returns, lengths, cut
        if self._is_hopeless():
            self._to_fly.clear()

    def _is_hopeless(self) -> bool:
        """Whether the mean is two standard errors short; judged in the order of the seeds, not of who was down first,
        since crashes are."""
        unknown = np.flatnonzero(np.isnan(self._returns))
        first = self._returns[: unknown[0]] if len(unknown) else self._returns
        return len(first) >= _LEAST and first.mean() + 2 * first.std() / math.sqrt(len(first)) < self._needed

    @property
    def seconds(self) -> float:
        """How long all actors together were kept from rollouts."""
        return self._seconds / self._actors

    @property
    def is_complete(self) -> bool:
        """Whether every episode was flown."""
        return not np.isnan(self._returns).any()

    @property
    def flown(self) -> tuple[Array, Array, Array]:
        """What ``fly_episodes`` answers, of the episodes that are down: returns [n], lengths [n], cut [n]."""
        down = ~np.isnan(self._returns)
        return self._returns[down], self._lengths[down], self._cut[down]
