"""Imitation of recorded actions: behaviour cloning, and the Decision Transformer. Free of torch, for who configures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from learner.algorithms.offline import Offline

if TYPE_CHECKING:
    from torch import Tensor

    from actors.spec import PolicySpec
    from learner.algorithms.algorithm import Metrics
    from learner.memory.memory import Columns
    from learner.networks.actor_critic import ActorCritic
    from learner.networks.config import Critic
    from learner.networks.sequence_policy import SequencePolicy


@dataclasses.dataclass(frozen=True)
class _Imitation(Offline):
    @property
    def idle_options(self) -> frozenset[str]:
        """Those of rewards, which change nothing where actions are imitated."""
        return super().idle_options | {"gamma", "reward_scale", "reward_clip"}


@dataclasses.dataclass(frozen=True)
class BehaviourCloning(_Imitation):
    """Makes recorded actions likely: −mean log π(a_t | o_t) (Pomerleau 1989)."""

    def make_network(self, spec: PolicySpec, critic: Critic) -> ActorCritic:  # noqa: ARG002
        """A policy without a critic."""
        from learner.networks.actor_critic import ActorCritic

        return ActorCritic(spec, has_critic=False)

    def loss(self, network: ActorCritic, steps: Columns) -> tuple[Tensor, Metrics]:
        """The mean surprise at recorded actions, in nats."""
        columns = {name: column.flatten(0, 1) for name, column in steps.items()}
        observations = network.standardised(columns["observations"])
        outputs = network(observations, columns["actions"], columns.get("allows"))
        return -outputs.log_probs.mean(), {"entropy_loss": -outputs.entropies.mean()}


@dataclasses.dataclass(frozen=True)
class DecisionTransformer(_Imitation):
    """Makes recorded actions likely, given the steps before and the return that came after (Chen et al. 2021)."""

    @property
    def learned_memories(self) -> frozenset[str]:
        """A transformer's keys and values."""
        return frozenset({"transformer"})

    def window(self, spec: PolicySpec) -> int:
        """As many steps as the transformer attends to."""
        return spec.network.memory_window

    def make_network(self, spec: PolicySpec, critic: Critic) -> SequencePolicy:  # noqa: ARG002
        """A policy with a transformer."""
        from learner.networks.sequence_policy import SequencePolicy

        return SequencePolicy(spec)

    def loss(self, network: SequencePolicy, steps: Columns) -> tuple[Tensor, Metrics]:
        """The mean surprise at recorded actions, in nats; 0 at what fills windows up, so that learners that share the
        windows mean over as many places."""
        log_probs, entropies = network(
            network.standardised(steps["observations"]),
            steps["previous_actions"],
            steps["returns_to_go"],
            steps["actions"],
            steps.get("allows"),
        )
        is_step = steps["is_step"].to(log_probs.dtype)
        return -(log_probs * is_step).mean(), {"entropy_loss": -(entropies * is_step).mean()}
