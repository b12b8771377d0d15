"""Values learned towards values: n-step returns, and a target network that says what they lead to. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.errors import UserError
from learner.algorithms.algorithm import Algorithm, require_count


@dataclasses.dataclass(frozen=True)
class Bootstrapping(Algorithm):
    """Learns from steps that any policy flew, towards what a target network says of where they lead."""

    n_step: int = 1
    """Rewards that are summed before the target network is asked."""
    target_update_interval: int = 200
    """Gradient steps between updates of the target network."""
    tau: float = 1.0
    """Share of the way to the learned network that an update of the target goes: 1 copies it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_step", self.n_step)
        require_count("target_update_interval", self.target_update_interval)
        if not 0 < self.tau <= 1:
            raise UserError(f"tau must lie above 0 and be 1 at most, not {self.tau}")

    def follow(self, network: Any, gradient_steps: int) -> None:
        """Let the target network follow, if it is time."""
        if gradient_steps % self.target_update_interval == 0:
            network.follow(self.tau)
