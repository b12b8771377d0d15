"""An algorithm that goes wrong, by a name that a configuration file can give."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from learner.algorithms.ppo import PPO


@dataclasses.dataclass(frozen=True)
class Raises(PPO):
    """Not an algorithm at all."""

    def policy_loss(self, log_probs: Tensor, steps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Raises, always."""
        raise ZeroDivisionError("no such loss")
