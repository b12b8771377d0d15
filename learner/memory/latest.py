"""The memory of on-policy algorithms: the last batch, several times over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from actors.trees import Array
from learner.memory.memory import Columns


class Latest:
    """The last batch in shuffled minibatches of one size; a pass's last is filled up with steps from its first.

    Args:
        n_epochs: passes over each batch.
        batch_size: steps in a minibatch; None: the whole batch at once.
        generator: shuffles; the same on all learners.
        arrange: what is done to a pass's minibatches at once, [minibatches, B, …] in all columns; None: nothing.
    """

    def __init__(
        self,
        n_epochs: int,
        batch_size: int | None,
        generator: torch.Generator,
        arrange: Callable[[Columns], Columns] | None = None,
    ) -> None:
        self._n_epochs, self._batch_size = n_epochs, batch_size
        self._generator = generator
        self._arrange = arrange
        self._columns: Columns = {}

    def add(self, columns: Columns) -> None:
        """Forget the batch before, and take in this one."""
        self._columns = columns

    def draw(self) -> Iterator[Iterable[Columns]]:
        """``n_epochs`` passes, each in another order."""
        for _ in range(self._n_epochs):
            yield self._minibatches()

    heeds_errors = False

    def told(self, errors: Tensor) -> None:
        """Nothing follows from it."""

    def figures(self) -> dict[str, float]:
        """None."""
        return {}

    def notes(self) -> list[str]:
        """None."""
        return []

    def state(self) -> dict[str, Array]:
        """Nothing: the next batch takes its place."""
        return {}

    def load_state(self, state: dict[str, Array]) -> None:
        """Nothing is held."""

    def _minibatches(self) -> Iterator[Columns]:
        """A pass; its order is drawn when the first minibatch is, so that one that is left out draws none."""
        columns, size = self._columns, self._batch_size
        some = next(iter(columns.values()))
        if size is None or size >= len(some):
            size = len(some)
        else:
            order = torch.randperm(len(some), generator=self._generator)
            order = torch.cat([order, order[: -len(some) % size]]).to(some.device)
            columns = {name: column[order] for name, column in columns.items()}
        split = {name: column.unflatten(0, (-1, size)) for name, column in columns.items()}
        if self._arrange:
            split = self._arrange(split)
        for minibatch in zip(*split.values(), strict=True):
            yield dict(zip(split, minibatch, strict=True))
