"""Proximal policy optimisation: a policy gradient whose steps are bounded. Free of torch, too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from learner.algorithms.algorithm import require_positive
from learner.algorithms.policy_gradient import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor

    from learner.algorithms.algorithm import Metrics
    from learner.memory.memory import Columns


@dataclasses.dataclass(frozen=True)
class PPO(PolicyGradient):
    """The policy gradient with a clipped ratio (Schulman et al. 2017, arXiv:1707.06347)."""

    clip_range: float = 0.2
    """The ratio π/π_old may earn nothing beyond 1 ± this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("clip_range", self.clip_range)

    def policy_loss(self, log_probs: Tensor, steps: Columns) -> tuple[Tensor, Metrics]:
        """−mean min(ρ A, clip(ρ, 1 ± ε) A), ρ = π/π_old (eq. 7)."""
        ratios = (log_probs - steps["log_probs"]).exp()
        clipped = ratios.clamp(1 - self.clip_range, 1 + self.clip_range)
        loss = -(ratios * steps["advantages"]).minimum(clipped * steps["advantages"]).mean()
        return loss, {"clip_fraction": (ratios.detach() != clipped.detach()).float().mean()}
