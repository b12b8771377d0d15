"""Action values from recordings: Q-learning that thinks little of what nobody did. Free of torch, too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from actors.parts import Parts
from actors.spaces import Space
from learner.algorithms.algorithm import require_weight
from learner.algorithms.dqn import QRegression
from learner.algorithms.offline import Offline
from learner.algorithms.value_based import EPSILON_GREEDY, require_values

if TYPE_CHECKING:
    from torch import Tensor

    from actors.distribution import Distribution
    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.dataset.dataset import Dataset
    from learner.dataset.transitions import Transitions
    from learner.memory.memory import Columns
    from learner.networks.q_network import QNetwork


@dataclasses.dataclass(frozen=True)
class CQL(QRegression, Offline):
    """DQN's regression on recorded steps, and values of other actions held down (Kumar et al. 2020, arXiv:2006.04779).

    What was never tried cannot prove itself worse than it seems, and the maximum of a target finds it.
    """

    conservatism: float = 1.0
    """α: how much log Σ_a exp q(o, a) − q(o, a_t), the surprise at the recorded action, counts (CQL(H), eq. 4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weight("conservatism", self.conservatism)

    def distribution(self, action: Space) -> str:
        """The most valued action.

        Raises:
            UserError: actions are not Discrete.
        """
        others = "preset bc learns" if isinstance(action, Parts) else "presets bc and dt learn"
        require_values(action, f"{others} such from recordings")
        return EPSILON_GREEDY

    def begin(self, network: QNetwork, steps: int) -> None:  # noqa: ARG002
        """Explore nothing."""
        from learner.networks.distributions import EpsilonGreedy

        assert isinstance(network.distribution, EpsilonGreedy)
        network.distribution.epsilon.fill_(0)

    def reader(self, dataset: Dataset, spec: PolicySpec, distribution: Distribution) -> Transitions:
        """Steps with their n-step returns, and where these lead."""
        from learner.dataset.transitions import Transitions

        scaled = self.reward_scale, self.reward_clip
        return Transitions(dataset, spec, distribution, self.n_step, self.gamma, *scaled)

    def loss(self, network: QNetwork, steps: Columns) -> tuple[Tensor, Metrics, Tensor]:
        """DQN's loss + α · mean (log Σ_a exp q(o, a) − q(o, a_t))."""
        regression, metrics, errors = super().loss(network, steps)
        values = network.q_values(network.standardised(steps["observations"]), steps.get("allows"))
        gaps = values.logsumexp(1) - values.gather(1, steps["actions"][:, None]).squeeze(1)
        return regression + self.conservatism * gaps.mean(), {**metrics, "conservative_gap": gaps.mean()}, errors
