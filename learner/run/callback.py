"""Callback: how others see a run go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from learner.run.result import Result
    from learner.run.trainer import Trainer


class Callback:
    """Told what happens in a run; override what you need."""

    def on_start(self, trainer: Trainer) -> None:
        """Actors and learner are starting."""

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """An update is done; ``metrics`` is its row of the log."""

    def on_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """A policy was evaluated beside training, or given up; ``metrics`` is the row of the log that says so."""

    def on_wait(self, trainer: Trainer) -> None:
        """Called several times a second."""

    def on_end(self, trainer: Trainer, result: Result) -> None:
        """The run is over, its last checkpoint written."""
