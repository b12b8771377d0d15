"""What every memory answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from actors.trees import Array

if TYPE_CHECKING:
    from torch import Tensor

Columns = dict[str, Any]
"""What a learner knows of T steps, by name: a Tensor [T, …] each. What a memory takes in may be Frames too."""
BEGINS, MEMORIES = "begins", "memories"
"""Columns of policies that remember: [T] bool, where a segment or a window of one begins, and [T, M], what was
remembered before each step. The steps of such are drawn in windows, in order."""


class Memory(Protocol):
    """Experience, and how it is drawn."""

    def add(self, columns: Columns) -> None:
        """Take in what ``Algorithm.prepare`` made of a batch, [T, …] each."""

    def draw(self) -> Iterator[Iterable[Columns]]:
        """An update's passes over the memory, each of minibatches, [B, …] in all columns. A pass may be left out,
        and has drawn no random numbers then.
        """

    @property
    def heeds_errors(self) -> bool:
        """Whether anything follows from ``told``, which is called only then."""

    def told(self, errors: Tensor) -> None:
        """Take note of how wrong each step of the minibatch was that was drawn last, [B]."""

    def figures(self) -> dict[str, float]:
        """Numbers for the log, by their names in train/."""

    def notes(self) -> list[str]:
        """What a person who trains should know of it, a line each, since the last call."""

    def state(self) -> dict[str, Array]:
        """What it holds, as arrays by name; what is drawn next follows from it and the generator."""

    def load_state(self, state: dict[str, Array]) -> None:
        """Hold what another of the same options held."""


class Unkept:
    """What a memory answers that has nothing to keep from update to update, and draws whatever was wrong before."""

    heeds_errors = False

    def told(self, errors: Tensor) -> None:
        """Nothing follows from errors."""

    def figures(self) -> dict[str, float]:
        """No numbers for the log."""
        return {}

    def notes(self) -> list[str]:
        """Nothing that a person should know."""
        return []

    def state(self) -> dict[str, Array]:
        """Nothing: what is learned from next is not held here."""
        return {}

    def load_state(self, state: dict[str, Array]) -> None:
        """Nothing is held."""
