"""Deep Q-networks and what was found to better them: double, dueling, prioritised, n-step, quantiles. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from actors.errors import UserError, unknown
from learner.algorithms.algorithm import (
    Experience,
    require_between,
    require_count,
    require_positive,
)
from learner.algorithms.q_learning import QLearning
from learner.algorithms.returns import n_step

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.memory.memory import Columns
    from learner.memory.replay import Replay
    from learner.networks.q_network import QNetwork


@dataclasses.dataclass(frozen=True)
class DQN(QLearning):
    """Regresses q towards r + γ max q of a target network, on steps from a replay memory (Mnih et al. 2015)."""

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
    double: bool = False
    """The learned network chooses the action that the target network values (van Hasselt et al. 2016)."""
    dueling: bool = False
    """Learn a state's value and its actions' advantages in streams of their own (Wang et al. 2016)."""
    n_quantiles: int = 1
    """Quantiles that are learned of each action's return, 200 customarily (QR-DQN, Dabney et al. 2018); 1: its mean."""
    td_loss: Literal["huber", "squared"] = "huber"
    """Of TD errors; huber grows on a line beyond 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer_size", "n_step", "target_update_interval", "n_quantiles", "priority_beta_steps"):
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
        if self.td_loss not in ("huber", "squared"):
            raise unknown("td_loss", self.td_loss, ("huber", "squared"))

    @property
    def most_lag(self) -> int | None:
        """Any number: whoever flew a step, it is one."""
        return None

    @property
    def idle_options(self) -> frozenset[str]:
        """Those of priorities without them."""
        idle = () if self.prioritized else ("priority_alpha", "priority_beta", "priority_beta_steps")
        return frozenset(idle)

    def make_network(self, spec: PolicySpec, critic_sizes: tuple[int, ...] | None) -> QNetwork:  # noqa: ARG002
        """Action values and a target network."""
        from learner.networks.q_network import QNetwork

        return QNetwork(spec, self.dueling, self.n_quantiles)

    def make_memory(self, generator: torch.Generator) -> Replay:
        """The last ``buffer_size`` steps."""
        from learner.memory.replay import Priorities, Replay

        by = Priorities(self.priority_alpha, self.priority_beta, self.priority_beta_steps) if self.prioritized else None
        assert self.batch_size is not None
        return Replay(self.buffer_size, self.batch_size, self.replay_ratio, self.learning_starts, generator, by)

    def prepare(self, network: QNetwork, flown: Experience) -> tuple[Columns, dict[str, float]]:  # noqa: ARG002
        """Steps with their n-step returns, and where these lead."""
        import torch

        ahead = n_step(flown.rewards, flown.ends, flown.terminated, flown.longest, self.gamma, self.n_step)
        columns = {
            "observations": flown.encoded,
            "actions": flown.actions,
            "returns": ahead.returns,
            "discounts": ahead.discounts,
            "next_observations": torch.cat([flown.encoded, flown.final_encoded])[ahead.rows],
        }
        if flown.allows is not None and flown.final_allows is not None:
            columns["next_allows"] = torch.cat([flown.allows, flown.final_allows])[ahead.rows]
        return columns, {}

    def loss(self, network: QNetwork, steps: Columns) -> tuple[Tensor, Metrics, Tensor]:
        """The mean loss of TD errors, weighed where steps were drawn by priority; what is told is each step's |TD|."""
        import torch

        predicted = chosen(network.quantiles(network.standardised(steps["observations"])), steps["actions"])
        with torch.no_grad():
            targets = self.targets(network, steps)
        if self.n_quantiles > 1:
            losses = quantile_huber(predicted, targets)
        else:
            losses = self._loss_of((targets - predicted).squeeze(1))
        errors = (targets.mean(1) - predicted.detach().mean(1)).abs()
        loss = (losses * steps["weights"]).mean() if "weights" in steps else losses.mean()
        return loss, {"q_values": predicted.mean(), "td_error": errors.mean()}, errors

    def targets(self, network: QNetwork, steps: Columns) -> Tensor:
        """[B, N]: R + γ^h q of the most valued action where the steps lead, by the target network."""
        following, allows = network.standardised(steps["next_observations"]), steps.get("next_allows")
        best = network.q_values(following, allows, of_target=not self.double).argmax(1)
        values = chosen(network.quantiles(following, of_target=True), best)
        return steps["returns"][:, None] + steps["discounts"][:, None] * values

    def _loss_of(self, errors: Tensor) -> Tensor:
        if self.td_loss == "squared":
            return 0.5 * errors.square()
        return huber(errors)

    def follow(self, network: QNetwork, gradient_steps: int) -> None:
        """Let the target network follow, if it is time."""
        if gradient_steps % self.target_update_interval == 0:
            network.follow(self.tau)


def chosen(quantiles: Tensor, actions: Tensor) -> Tensor:
    """Of [B, A, N] those of the actions [B]: [B, N]."""
    return quantiles.gather(1, actions[:, None, None].expand(-1, 1, quantiles.shape[2])).squeeze(1)


def huber(errors: Tensor) -> Tensor:
    """½ e², and |e| − ½ beyond ±1 (Huber 1964)."""
    distances = errors.abs()
    within = distances.clamp(max=1)
    return within * (distances - 0.5 * within)


def quantile_huber(predicted: Tensor, targets: Tensor) -> Tensor:
    """Σ_i mean_j |τ_i − 1{u < 0}| L(u), u = target_j − θ_i (Dabney et al. 2018, eq. 10): [B].

    Args:
        predicted: [B, N], θ_i: the return's quantiles at τ_i = (i + ½) / N.
        targets: [B, M]: samples of the return.
    """
    import torch

    u = targets[:, None] - predicted[:, :, None]
    midpoints = (torch.arange(predicted.shape[1], device=u.device, dtype=u.dtype) + 0.5) / predicted.shape[1]
    tilt = (midpoints[:, None] - (u.detach() < 0).to(u.dtype)).abs()
    return (tilt * huber(u)).mean(2).sum(1)
