"""Sum tree: draws places in proportion to their weights, in time that grows with the logarithm of their number."""

from __future__ import annotations

import numpy as np

from actors.trees import Array


class SumTree:
    """``capacity`` weights, all 0 at first, as the leaves of a binary tree whose nodes are the sums of their children.

    All that is looked up at once goes down the tree together, a level a call.

    Args:
        capacity: places.
    """

    def __init__(self, capacity: int) -> None:
        self._depth = max(1, (capacity - 1).bit_length())
        self._leaves = 1 << self._depth
        self._sums = np.zeros(2 * self._leaves)
        """Node 1 is the root, 2i and 2i + 1 are the children of node i; float64."""

    @staticmethod
    def bytes_for(capacity: int) -> int:
        """What one of so many places takes."""
        return 16 << max(1, (capacity - 1).bit_length())

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._sums[1])

    def get(self, places: Array) -> Array:
        """The weights of places [n]: [n] float64."""
        return np.asarray(self._sums[places + self._leaves])

    def set(self, places: Array, weights: Array) -> None:
        """Set the weights [n], none negative, of places [n]; of one that is named twice the last holds."""
        sums, nodes = self._sums, places + self._leaves
        sums[nodes] = weights
        pairs = sums.reshape(-1, 2)  # row i: the children of node i
        for _ in range(self._depth):
            nodes >>= 1
            children = pairs.take(nodes, axis=0)
            sums[nodes] = children[:, 0] + children[:, 1]

    def find(self, shares: Array) -> tuple[Array, Array]:
        """The places where the running sum of the weights passes these shares of the total.

        Args:
            shares: [n], from 0 to less than 1.

        Returns:
            Places [n] int64, none of weight 0, and their weights over the total [n].

        Raises:
            ValueError: all weights are 0.
        """
        if not self.total > 0:
            raise ValueError("nothing can be found where all weights are 0")
        sums, left, nodes = self._sums, shares * self.total, np.ones(len(shares), np.int64)
        for _ in range(self._depth):
            nodes <<= 1
            first = sums.take(nodes)
            goes_right = left >= first
            left -= first * goes_right
            nodes += goes_right
        weights = sums.take(nodes)
        if not weights.all():  # rounding left a little more than there was
            missed = np.flatnonzero(weights == 0)
            places, _ = self.find(shares[missed] * (1 - 1e-12))
            nodes[missed] = places + self._leaves
            weights = sums.take(nodes)
        return nodes - self._leaves, weights / self.total
