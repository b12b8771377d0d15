"""Running mean and standard deviation of observations."""

from __future__ import annotations

from typing import Literal

import numpy as np

from actors.episode import Array

_REMEMBERED = 1e5
"""As so many observations statistics of unknown age count: the first batches change them by a few per cent."""


class Normalizer:
    """Statistics of all observations so far, merged a batch at a time (Chan et al. 1979), in float64.

    Args:
        size: components of an observation.
        dtype: in which it tells them.
    """

    def __init__(self, size: int, dtype: Literal["float32", "float64"] = "float32") -> None:
        self._dtype = dtype
        self._count = np.zeros(())
        self._mean = np.zeros(size)
        self._squares = np.zeros(size)

    @property
    def mean(self) -> Array:
        """[size]."""
        return self._mean.astype(self._dtype)

    @property
    def std(self) -> Array:
        """[size], positive; 1 before the first batch."""
        variance = self._squares / self._count if self._count > 0 else np.ones_like(self._squares)
        return np.sqrt(variance + 1e-8).astype(self._dtype)

    def start_from(self, mean: Array, std: Array) -> None:
        """Take over statistics that say nothing of how many observations they are of."""
        self._count = np.asarray(_REMEMBERED)
        self._mean, self._squares = mean.astype(np.float64), _REMEMBERED * std.astype(np.float64) ** 2

    def update(self, observations: Array) -> None:
        """Take in [n, size] observations."""
        count = len(observations)
        mean = observations.mean(0, dtype=np.float64)
        squares = np.square(observations - mean).sum(0)
        total = self._count + count
        delta = mean - self._mean
        self._squares = self._squares + squares + delta**2 * self._count * count / total
        self._mean = self._mean + delta * count / total
        self._count = np.asarray(total)

    def state(self) -> dict[str, Array]:
        """The statistics as arrays by name."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on from those statistics."""
        self._count, self._mean, self._squares = state["count"], state["mean"], state["squares"]
