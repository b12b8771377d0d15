"""What every memory answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from torch import Tensor

Columns = dict[str, Tensor]
"""What a learner knows of T steps, by name: [T, …] each."""


class Memory(Protocol):
    """Experience, and how it is drawn."""

    def add(self, columns: Columns) -> None:
        """Take in what ``Algorithm.prepare`` made of a batch, [T, …] each."""

    def draw(self) -> Iterator[Iterable[Columns]]:
        """An update's passes over the memory, each of minibatches, [B, …] in all columns. A pass may be left out,
        and has drawn no random numbers then.
        """
