"""A loss that goes wrong, by a name that a configuration file can give."""

from __future__ import annotations

from torch import Tensor

from learner.hyperparameters import LossConfig
from learner.losses import Metrics, Minibatch, Outputs


def raises(outputs: Outputs, batch: Minibatch, config: LossConfig) -> tuple[Tensor, Metrics]:
    """Not a loss at all."""
    raise ZeroDivisionError("no such loss")
