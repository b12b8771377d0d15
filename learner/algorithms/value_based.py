"""What all algorithms that learn action values share: ε-greedy exploration by a schedule. Free of torch, too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from actors.errors import UserError
from actors.spaces import Box, Discrete, Space
from learner.algorithms.algorithm import Algorithm, require_between, require_count

if TYPE_CHECKING:
    from learner.networks.torch_policy import TorchPolicy


EPSILON_GREEDY = "epsilon_greedy"
"""The distribution of who takes the most valued action, but for a share ε of steps."""


def require_values(action: Space, otherwise: str) -> None:
    """Make sure that each action can have a value.

    Raises:
        UserError: actions are not Discrete; ends with what to do.
    """
    if not isinstance(action, Discrete):
        raise UserError(
            f"each of a number of actions gets a value, and an action here is {action.in_words()}: {otherwise}"
        )


@dataclasses.dataclass(frozen=True)
class ValueBased(Algorithm):
    """Learns q(o, a), takes the most valued action, and another one for a share ε of steps."""

    exploration_initial_eps: float = 1.0
    """ε at first."""
    exploration_final_eps: float = 0.05
    """ε in the end."""
    exploration_steps: int = 40_000
    """Environment steps over which ε falls from the one to the other, on a line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("exploration_initial_eps", self.exploration_initial_eps, 0, 1)
        require_between("exploration_final_eps", self.exploration_final_eps, 0, 1)
        require_count("exploration_steps", self.exploration_steps)

    def distribution(self, action: Space) -> str:
        """ε-greedy.

        Raises:
            UserError: actions are not Discrete.
        """
        others = "presets sac and ppo learn" if isinstance(action, Box) else "preset ppo learns"
        require_values(action, f"{others} such")
        return EPSILON_GREEDY

    def epsilon(self, steps: int) -> float:
        """ε after so many environment steps."""
        begun, ended = self.exploration_initial_eps, self.exploration_final_eps
        return begun + (ended - begun) * min(1.0, steps / self.exploration_steps)

    def begin(self, network: TorchPolicy, steps: int) -> None:
        """Set the ε of the policies to come."""
        from learner.networks.distributions import EpsilonGreedy

        assert isinstance(network.distribution, EpsilonGreedy)
        network.distribution.epsilon.fill_(self.epsilon(steps))
