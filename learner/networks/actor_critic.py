"""A policy and, where it is wanted, a critic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from actors.spec import PolicySpec
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
        self._shares = critic.shares
        hidden, seen = spec.network.hidden_sizes, spec.layer_sizes[0]
        sizes = (seen, *(hidden if critic.sizes is None else critic.sizes), 1)
        if self._shares:
            sizes = (hidden[-1] if hidden else seen, *(critic.sizes or ()), 1)
        self.critic = perceptron(sizes, spec.network.activation, 1.0, spec.network.layer_norm) if has_critic else None
        has_eyes = has_critic and self.encoder is not None and not self._shares
        self.critic_encoder = Encoder(spec) if has_eyes else None

    def value(self, observations: Tensor) -> Tensor:
        """v(o): [B, inputs] -> [B]; zeros without a critic."""
        if self.critic is None:
            return torch.zeros_like(observations.flatten(1)[:, 0], dtype=torch.float32)
        if self._shares:
            return self._judged(self.actor[:-1](self.encoded(observations)))
        return self._judged(observations if self.critic_encoder is None else self.critic_encoder(observations))

    def _judged(self, seen: Tensor) -> Tensor:
        assert self.critic is not None
        values: Tensor = self.critic(seen).squeeze(1)
        return values

    def forward(self, observations: Tensor, actions: Tensor, allows: Tensor | None = None) -> Outputs:
        """Evaluate steps that were flown: observations [B, inputs], actions [B] or [B, A], masks [B, A] bool."""
        if self._shares and self.critic is not None:
            hidden = self.actor[:-1](self.encoded(observations))
            parameters, values = self.parameters_after(hidden, allows), self._judged(hidden)
        else:
            parameters, values = self.parameters_of(observations, allows), self.value(observations)
        log_probs, entropies = self.distribution.evaluate(parameters, actions)
        return Outputs(log_probs, entropies, values)
