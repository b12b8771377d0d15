"""A policy and, where it is wanted, a critic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from actors.spec import PolicySpec
from learner.memory.memory import Columns
from learner.networks.config import Critic
from learner.networks.encoder import Encoder
from learner.networks.torch_policy import TorchPolicy, perceptron


class Outputs(NamedTuple):
    """What the networks say of B steps; everything a loss may differentiate."""

    log_probs: Tensor
    """[B]: log π(a_t | o_t) of the actions taken."""
    entropies: Tensor
    """[B]: H(π(· | o_t)), in nats."""
    values: Tensor
    """[B]: v(o_t); zeros without a critic."""
    memory_drift: Tensor | None = None
    """How far what is remembered is from what was when the update began, relative to this; None: nothing is."""


class ActorCritic(TorchPolicy):
    """π(a | o) and v(o), which share all but their last layers or nothing.

    Args:
        spec: of the policy.
        has_critic: whether there is a v.
        critic: its layers; None: as the policy's.
    """

    def __init__(self, spec: PolicySpec, has_critic: bool, critic: Critic | None = None) -> None:
        super().__init__(spec)
        critic = critic or Critic()
        self._shares, remembers = critic.shares, self.core is not None
        inputs = spec.features if self._shares or remembers else spec.layer_sizes[0]
        usual = () if self._shares else spec.network.hidden_sizes
        sizes = (inputs, *(usual if critic.sizes is None else critic.sizes), 1)
        self.critic = perceptron(sizes, spec.network.activation, 1.0, spec.network.layer_norm) if has_critic else None
        has_eyes = has_critic and self.encoder is not None and not (self._shares or remembers)
        self.critic_encoder = Encoder(spec) if has_eyes else None

    def value_layers(self) -> list[nn.Linear]:
        """The critic's last."""
        return [] if self.critic is None else [self.critic[-1]]  # type: ignore[list-item]

    def value(self, observations: Tensor) -> Tensor:
        """v(o): [B, inputs] -> [B]; zeros without a critic."""
        if self._shares:
            return self.value_after(self.hidden(observations))
        return self.value_after(observations if self.critic_encoder is None else self.critic_encoder(observations))

    def value_after(self, seen: Tensor) -> Tensor:
        """v of what the critic reads, observations or the last hidden layer or a memory; zeros without a critic."""
        if self.critic is None:
            return torch.zeros_like(seen.flatten(1)[:, 0], dtype=torch.float32)
        values: Tensor = self.critic(seen).squeeze(1)
        return values

    def judged(
        self,
        observations: Tensor,
        final_observations: Tensor,
        ends: Tensor,  # noqa: ARG002
        memory: Tensor | None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Columns]:
        """What the critic says of a batch, as ``Experience`` has it, and what has to be known to evaluate it again.

        Returns:
            v(o_t) [T], v of the observations after segments [E], and columns by name, [T, …] each.
        """
        return self.value(observations), self.value(final_observations), {}

    def forward(self, observations: Tensor, actions: Tensor, allows: Tensor | None = None) -> Outputs:
        """Evaluate steps that were flown: observations [B, inputs], actions [B] or [B, A], masks [B, A] bool."""
        if self._shares:
            hidden = self.hidden(observations)
            parameters, values = self.parameters_after(hidden, allows), self.value_after(hidden)
        else:
            parameters, values = self.parameters_of(observations, allows), self.value(observations)
        log_probs, entropies = self.distribution.evaluate(parameters, actions)
        return Outputs(log_probs, entropies, values)
