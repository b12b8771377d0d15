"""The options of a step of the optimiser. Free of torch, for who only configures."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from actors.errors import UserError, unknown

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")


@dataclasses.dataclass(frozen=True)
class OptimisationConfig:
    """How a gradient becomes a step."""

    learning_rate: float = 3e-3
    """Step size at the start."""
    schedule: Literal["constant", "linear"] = "constant"
    """Whether the learning rate stays, or falls to zero at the end of the budget. A resume with another budget lets it
    fall from where it was to the new end."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """torch.optim's."""
    optimizer_eps: float = 1e-8
    """ε of adam, adamw and rmsprop. PPO's is customarily 1e-5; with rewards × 0.01 the root mean square of an actor's
    gradients is 3e-5 to 4e-4, and that would shorten steps by up to a quarter: torch's 1e-8 does not."""
    max_grad_norm: float = 0.5
    """Gradients longer than this are shortened to it; inf: never."""
    bfloat16: bool = False
    """Convolve in bfloat16: twice as fast where the processor has instructions for it, and slower elsewhere."""
    compile: bool = True
    """Record the minibatch step once and replay it; the results are the same."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in ("constant", "linear"):
            raise unknown("schedule", self.schedule, ("constant", "linear"))
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 < self.optimizer_eps < math.inf:
            raise UserError(f"optimizer_eps must be positive, not {self.optimizer_eps}")
        if not self.max_grad_norm > 0:
            raise UserError(f"max_grad_norm must be positive, not {self.max_grad_norm}")
