"""What all algorithms that learn from a replay memory share: its options, n-step returns, a target network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from actors.errors import UserError
from learner.algorithms.algorithm import Algorithm, Experience, require_between, require_count, require_positive
from learner.algorithms.returns import n_step

if TYPE_CHECKING:
    import torch

    from learner.memory.memory import Columns
    from learner.memory.replay import Replay


@dataclasses.dataclass(frozen=True)
class OffPolicy(Algorithm):
    """Learns from steps that any policy flew, as a replay memory draws them, towards what a target network says."""

    buffer_size: int = 50_000
    """Steps that the replay memory holds."""
    learning_starts: int = 1_000
    """Steps that it must hold before any is learned from."""
    replay_ratio: float = 1 / 32
    """Gradient steps for each environment step."""
    prioritized: bool = False
    """Draw steps by their last TD error instead of uniformly (Schaul et al. 2016)."""
    priority_alpha: float = 0.6
    """α: how much the error counts in the drawing, from 0 (uniform) to 1."""
    priority_beta: float = 0.4
    """β at first: how much weights correct for the drawing, up to 1."""
    priority_beta_steps: int = 100_000
    """Environment steps over which β rises to 1."""
    n_step: int = 1
    """Rewards that are summed before the target network is asked."""
    target_update_interval: int = 200
    """Gradient steps between updates of the target network."""
    tau: float = 1.0
    """Share of the way to the learned network that an update of the target goes: 1 copies it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer_size", "n_step", "target_update_interval", "priority_beta_steps"):
            require_count(name, getattr(self, name))
        require_count("learning_starts", self.learning_starts, 0)
        require_positive("replay_ratio", self.replay_ratio)
        for name in ("priority_alpha", "priority_beta"):
            require_between(name, getattr(self, name), 0, 1)
        if not 0 < self.tau <= 1:
            raise UserError(f"tau must lie above 0 and be 1 at most, not {self.tau}")
        if self.batch_size is None:
            raise UserError("batch_size must be a number: minibatches are drawn from a replay memory")
        if self.learning_starts > self.buffer_size:
            raise UserError(
                f"learning_starts {self.learning_starts} is more than the memory holds, buffer_size {self.buffer_size}"
            )

    @property
    def most_lag(self) -> int | None:
        """Any number: whoever flew a step, it is one."""
        return None

    @property
    def idle_options(self) -> frozenset[str]:
        """Those of priorities without them."""
        return frozenset(() if self.prioritized else ("priority_alpha", "priority_beta", "priority_beta_steps"))

    def make_memory(self, generator: torch.Generator) -> Replay:
        """The last ``buffer_size`` steps."""
        from learner.memory.replay import Priorities, Replay

        by = Priorities(self.priority_alpha, self.priority_beta, self.priority_beta_steps) if self.prioritized else None
        assert self.batch_size is not None
        return Replay(self.buffer_size, self.batch_size, self.replay_ratio, self.learning_starts, generator, by)

    def prepare(self, network: Any, flown: Experience) -> tuple[Columns, dict[str, float]]:  # noqa: ARG002
        """Steps with their n-step returns, and where these lead."""
        import torch

        from learner.memory.frames import join

        ahead = n_step(flown.rewards, flown.ends, flown.terminated, flown.longest, self.gamma, self.n_step)
        columns: Columns = {
            "observations": flown.encoded,
            "actions": flown.actions,
            "returns": ahead.returns,
            "discounts": ahead.discounts,
            "next_observations": join(flown.encoded, flown.final_encoded, ahead.rows),
        }
        if flown.allows is not None and flown.final_allows is not None:
            columns["next_allows"] = torch.cat([flown.allows, flown.final_allows])[ahead.rows]
        return columns, {}

    def follow(self, network: Any, gradient_steps: int) -> None:
        """Let the target network follow, if it is time."""
        if gradient_steps % self.target_update_interval == 0:
            network.follow(self.tau)
