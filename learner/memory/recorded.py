"""The memory of those who learn from recordings: windows of episodes that are in files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from actors.trees import Array
from learner.dataset.windows import Reader
from learner.memory.memory import Columns, Unkept


class Recorded(Unkept):
    """Windows drawn evenly by episode, from a uniformly drawn step on: long episodes count as much as short ones.

    Args:
        reader: makes columns of them.
        lengths: [E] int64: steps of each episode.
        count: windows in a minibatch.
        gradient_steps: minibatches of an update.
        generator: draws; the same on all learners.
        device: where they are learned from.
    """

    def __init__(
        self,
        reader: Reader,
        lengths: Array,
        count: int,
        gradient_steps: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._reader, self._lengths, self._count = reader, torch.from_numpy(lengths), count
        self._gradient_steps, self._generator, self._device = gradient_steps, generator, device

    def add(self, columns: Columns) -> None:
        """Nothing: what is recorded does not grow."""

    def draw(self) -> Iterator[Iterable[Columns]]:
        """One pass of ``gradient_steps`` minibatches, as the reader makes them."""
        yield (self._minibatch() for _ in range(self._gradient_steps))

    def _minibatch(self) -> Columns:
        episodes = torch.randint(len(self._lengths), (self._count,), generator=self._generator)
        shares = torch.rand(self._count, dtype=torch.float64, generator=self._generator)
        firsts = (shares * self._lengths[episodes]).long()
        columns = self._reader.read(episodes.numpy(), firsts.numpy())
        return {name: torch.from_numpy(np.ascontiguousarray(each)).to(self._device) for name, each in columns.items()}
