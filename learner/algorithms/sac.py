"""Soft actor-critic: off-policy learning of continuous actions, at an entropy that is kept. Free of torch, too."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from actors.action_bounds import ActionBounds
from actors.errors import UserError
from actors.spaces import Box, Discrete, Space
from learner.algorithms.algorithm import require_positive
from learner.algorithms.off_policy import OffPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.memory.memory import Columns
    from learner.networks.config import Critic
    from learner.networks.soft_actor_critic import SoftActorCritic


@dataclasses.dataclass(frozen=True)
class SAC(OffPolicy):
    """Maximises return + α · entropy; twin critics, squashed Gaussian (Haarnoja et al. 2018, arXiv:1812.05905).

    With n steps only the entropy where they lead counts, not those on the way.
    """

    ent_coef: float | None = None
    """The temperature α; None: it is learned, from 1."""
    target_entropy: float | None = None
    """Entropy at which a learned α keeps the policy, in nats; None: minus the number of the action's components."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ent_coef is not None:
            require_positive("ent_coef", self.ent_coef)
        if self.target_entropy is not None and not math.isfinite(self.target_entropy):
            raise UserError(f"target_entropy must be a number, or None, not {self.target_entropy}")

    @property
    def idle_options(self) -> frozenset[str]:
        """A target for the entropy where α is given."""
        return super().idle_options | (frozenset() if self.ent_coef is None else {"target_entropy"})

    def distribution(self, action: Space) -> str:
        """A squashed Gaussian.

        Raises:
            UserError: actions are not continuous, or lack a bound.
        """
        if not isinstance(action, Box):
            raise UserError(
                f"sac learns continuous actions, and these are {action.in_words()}: "
                f"{'presets dqn, pqn and ppo learn' if isinstance(action, Discrete) else 'preset ppo learns'} such"
            )
        if not ActionBounds(action.low, action.high, True).all_scaled:
            raise UserError("sac's actions lie between bounds, and a component of these lacks one: take preset ppo")
        return "squashed_gaussian"

    def make_network(self, spec: PolicySpec, critic: Critic) -> SoftActorCritic:
        """A policy, its critics and their targets."""
        from learner.networks.soft_actor_critic import SoftActorCritic

        return SoftActorCritic(spec, critic, self.ent_coef or 1.0, self.ent_coef is None)

    def loss(self, network: SoftActorCritic, steps: Columns) -> tuple[Tensor, Metrics, Tensor]:
        """The losses of critics, policy and temperature, which share no gradient; each step's mean |TD| is told."""
        import torch

        from learner.networks.distributions import SquashedGaussian

        assert isinstance(network.distribution, SquashedGaussian)
        observations = network.standardised(steps["observations"])
        following = network.standardised(steps["next_observations"])
        ent_coef = network.temperature.log_value.exp().detach()

        parameters = network.parameters_of(observations)
        noise = torch.randn_like(steps["actions"])
        actions, log_probs = network.distribution.sample(parameters, noise)
        actor_loss = (ent_coef * log_probs - network.held_critics(observations, actions).amin(1)).mean()

        with torch.no_grad():
            parameters = network.parameters_of(following)
            next_actions, next_log_probs = network.distribution.sample(parameters, torch.randn_like(noise))
            values = network.target(following, next_actions).amin(1) - ent_coef * next_log_probs
            targets = steps["returns"] + steps["discounts"] * values
        predicted = network.critics(observations, steps["actions"])
        errors = predicted - targets[:, None]
        losses = 0.5 * errors.square().sum(1)
        critic_loss = (losses * steps["weights"]).mean() if "weights" in steps else losses.mean()

        goal = -float(actions.shape[1]) if self.target_entropy is None else self.target_entropy
        entropy = -log_probs.detach().mean()
        ent_coef_loss = network.temperature.log_value * (entropy - goal)
        metrics = {
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "ent_coef": ent_coef,
            "entropy": entropy,
            "q_values": predicted.mean(),
        }
        return actor_loss + critic_loss + ent_coef_loss, metrics, errors.detach().abs().mean(1)
