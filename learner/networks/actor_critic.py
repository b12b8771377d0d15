"""A policy and, where it is wanted, a critic: two multilayer perceptrons that share nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from actors.spec import PolicySpec
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
    """π(a | o) and v(o)."""

    def __init__(self, spec: PolicySpec, has_critic: bool, critic_sizes: tuple[int, ...] | None = None) -> None:
        super().__init__(spec)
        sizes = (spec.layer_sizes[0], *(spec.network.hidden_sizes if critic_sizes is None else critic_sizes), 1)
        self.critic = perceptron(sizes, spec.network.activation, 1.0, spec.network.layer_norm) if has_critic else None

    def value(self, observations: Tensor) -> Tensor:
        """v(o): [B, inputs] -> [B]; zeros without a critic."""
        if self.critic is None:
            return torch.zeros_like(observations[:, 0])
        values: Tensor = self.critic(observations).squeeze(1)
        return values

    def forward(self, observations: Tensor, actions: Tensor, allows: Tensor | None = None) -> Outputs:
        """Evaluate steps that were flown: observations [B, inputs], actions [B] or [B, A], masks [B, A] bool."""
        parameters = self.parameters_of(observations, allows)
        values = self.value(observations)
        log_probs, entropies = self.distribution.evaluate(parameters, actions)
        return Outputs(log_probs, entropies, values)
