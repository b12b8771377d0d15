"""The memory of on-policy algorithms: the last batch, several times over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from learner.memory.frames import select
from learner.memory.memory import BEGINS, Columns, Unkept


class Latest(Unkept):
    """The last batch in shuffled minibatches of one size; a pass's last is filled up with steps from its first.

    Of columns with memories whole windows are drawn, each a number of consecutive steps; the last of a batch reaches
    back into the one before.

    Args:
        n_epochs: passes over each batch.
        batch_size: steps in a minibatch; None: the whole batch at once.
        generator: shuffles; the same on all learners.
        arrange: what is done to a pass's minibatches at once, [minibatches, B, …] in all columns; None: nothing.
        length: steps of a window.
    """

    def __init__(
        self,
        n_epochs: int,
        batch_size: int | None,
        generator: torch.Generator,
        arrange: Callable[[Columns], Columns] | None = None,
        length: int = 1,
    ) -> None:
        self._n_epochs, self._batch_size = n_epochs, batch_size
        self._generator = generator
        self._arrange, self._length = arrange, length
        self._columns: Columns = {}

    def add(self, columns: Columns) -> None:
        """Forget the batch before, and take in this one."""
        self._columns = columns

    def draw(self) -> Iterator[Iterable[Columns]]:
        """``n_epochs`` passes, each in another order."""
        for _ in range(self._n_epochs):
            yield self._minibatches()

    def _minibatches(self) -> Iterator[Columns]:
        """A pass; its order is drawn when the first minibatch is, so that one that is left out draws none."""
        columns, size = self._columns, self._batch_size
        some = next(iter(columns.values()))
        if size is None or size >= len(some):
            size = len(some)
        else:
            columns = self._shuffled(columns, len(some), size)
        split = {name: column.unflatten(0, (-1, size)) for name, column in columns.items()}
        if self._arrange:
            split = self._arrange(split)
        for minibatch in zip(*split.values(), strict=True):
            yield dict(zip(split, minibatch, strict=True))

    def _shuffled(self, columns: Columns, steps: int, size: int) -> Columns:
        """All steps in another order, and some once more, so that they are a multiple of ``size``."""
        length = self._length if BEGINS in columns else 1
        starts = torch.arange(0, steps, length).clamp(max=steps - length)
        order = torch.randperm(len(starts), generator=self._generator)
        order = torch.cat([order, order[: -len(starts) % (size // length)]])
        rows = (starts[order, None] + torch.arange(length)).flatten().to(next(iter(columns.values())).device)
        columns = {name: select(column, rows) for name, column in columns.items()}
        if BEGINS in columns:
            columns[BEGINS][::length] = True
        return columns
