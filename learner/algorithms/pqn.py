"""Parallelised Q-networks: Q(λ) on fresh batches of many environments, without replay or target. Free of torch, too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from learner.algorithms.algorithm import Experience, require_between, require_count
from learner.algorithms.dqn import chosen
from learner.algorithms.returns import Trajectories, lambda_returns
from learner.algorithms.value_based import ValueBased

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.memory.latest import Latest
    from learner.memory.memory import Columns
    from learner.networks.config import Critic
    from learner.networks.q_network import QNetwork


@dataclasses.dataclass(frozen=True)
class PQN(ValueBased):
    """Regresses q towards λ-returns, worked out once a batch (Gallici et al. 2024, arXiv:2407.04811)."""

    q_lambda: float = 0.9
    """λ of Q(λ): 0 trusts the values, 1 the returns."""
    n_epochs: int = 8
    """Passes over each batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("q_lambda", self.q_lambda, 0, 1)
        require_count("n_epochs", self.n_epochs)

    def make_network(self, spec: PolicySpec, critic: Critic) -> QNetwork:  # noqa: ARG002
        """Action values."""
        from learner.networks.q_network import QNetwork

        return QNetwork(spec, has_target=False)

    def make_memory(self, generator: torch.Generator) -> Latest:
        """The last batch, ``n_epochs`` times over."""
        from learner.memory.latest import Latest

        return Latest(self.n_epochs, self.batch_size, generator)

    def prepare(self, network: QNetwork, flown: Experience) -> tuple[Columns, dict[str, float]]:
        """Targets G_t = r_{t+1} + γ ((1 − λ) max q(o_{t+1}) + λ G_{t+1}).

        What explored is not cut (Peng and Williams 1996).
        """
        values = network.q_values(flown.observations, flown.allows).amax(1)
        final_values = network.q_values(flown.final_observations, flown.final_allows).amax(1)
        ratios = values.new_zeros(len(values))
        steps = Trajectories(flown.rewards, flown.ends, flown.terminated, flown.longest, values, final_values, ratios)
        returns = lambda_returns(steps, self.gamma, self.q_lambda)
        columns = {"observations": flown.observations, "actions": flown.actions, "returns": returns}
        return columns, {"mean_return_target": float(returns.mean())}

    def loss(self, network: QNetwork, steps: Columns) -> tuple[Tensor, Metrics]:
        """½ mean (q(o, a) − G)²."""
        predicted = chosen(network.quantiles(steps["observations"]), steps["actions"]).squeeze(1)
        errors = steps["returns"] - predicted
        return 0.5 * errors.square().mean(), {"q_values": predicted.mean(), "td_error": errors.abs().mean()}
