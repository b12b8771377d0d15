"""Deep Q-networks and what was found to better them: double, dueling, prioritised, n-step, quantiles. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from actors.errors import UserError, unknown
from learner.algorithms.algorithm import require_count
from learner.algorithms.bootstrapping import Bootstrapping
from learner.algorithms.off_policy import OffPolicy
from learner.algorithms.value_based import ValueBased

if TYPE_CHECKING:
    from torch import Tensor

    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.memory.memory import Columns
    from learner.networks.config import Critic
    from learner.networks.q_network import QNetwork


@dataclasses.dataclass(frozen=True)
class QRegression(Bootstrapping):
    """Regresses q towards R + γ^h max q of a target network; see DQN and CQL, which draw their steps."""

    double: bool = False
    """The learned network chooses the action that the target network values (van Hasselt et al. 2016)."""
    dueling: bool = False
    """Learn a state's value and its actions' advantages by last layers of their own (Wang et al. 2016, whose streams
    have a hidden layer each too)."""
    n_quantiles: int = 1
    """Quantiles that are learned of each action's return, 200 customarily (QR-DQN, Dabney et al. 2018); 1: its mean."""
    td_loss: Literal["huber", "squared"] = "huber"
    """What is made of a TD error: half its square, or huber, which grows on a line beyond 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_quantiles", self.n_quantiles, most=10_000)
        if self.td_loss not in ("huber", "squared"):
            raise unknown("td_loss", self.td_loss, ("huber", "squared"))

    @property
    def idle_options(self) -> frozenset[str]:
        """The loss of a mean where quantiles have their own, and what the memory leaves."""
        return super().idle_options | ({"td_loss"} if self.n_quantiles > 1 else frozenset())

    def require_fit(self, spec: PolicySpec) -> None:
        """Make sure that it can learn such a policy.

        Raises:
            UserError: streams are to part after a hidden layer, and there is none; or it has a memory.
        """
        super().require_fit(spec)
        if self.dueling and not spec.network.hidden_sizes:
            raise UserError("dueling streams part after the last hidden layer: hidden_sizes must have one")

    def make_network(self, spec: PolicySpec, critic: Critic) -> QNetwork:  # noqa: ARG002
        """Action values and a target network."""
        from learner.networks.q_network import QNetwork

        return QNetwork(spec, self.dueling, self.n_quantiles)

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
        targets: Tensor = steps["returns"][:, None] + steps["discounts"][:, None] * values
        return targets

    def _loss_of(self, errors: Tensor) -> Tensor:
        if self.td_loss == "squared":
            return 0.5 * errors.square()
        return huber(errors)


@dataclasses.dataclass(frozen=True)
class DQN(QRegression, OffPolicy, ValueBased):
    """Regresses q towards r + γ max q of a target network, on steps from a replay memory (Mnih et al. 2015)."""


def chosen(quantiles: Tensor, actions: Tensor) -> Tensor:
    """The quantiles of the actions [B], [B, N], among those of all actions, [B, A, N]."""
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
