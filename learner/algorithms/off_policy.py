"""What all algorithms that learn from a replay memory share: its options, and what it is given."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from actors.errors import UserError
from learner.algorithms.algorithm import Experience, require_between, require_count, require_positive
from learner.algorithms.bootstrapping import Bootstrapping
from learner.algorithms.returns import n_step

if TYPE_CHECKING:
    import torch

    from learner.memory.memory import Columns
    from learner.memory.replay import Replay


@dataclasses.dataclass(frozen=True)
class OffPolicy(Bootstrapping):
    """Learns from steps as a replay memory draws them, whoever flew them."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer_size", "priority_beta_steps"):
            require_count(name, getattr(self, name))
        require_count("learning_starts", self.learning_starts, 0)
        require_positive("replay_ratio", self.replay_ratio)
        for name in ("priority_alpha", "priority_beta"):
            require_between(name, getattr(self, name), 0, 1)
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
