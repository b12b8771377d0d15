"""A policy and, where it is wanted, a critic: two multilayer perceptrons that share nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from actors.spec import PolicySpec
from learner.memory.memory import Columns
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
    """π(a | o) and v(o)."""

    def __init__(self, spec: PolicySpec, has_critic: bool, critic_sizes: tuple[int, ...] | None = None) -> None:
        super().__init__(spec)
        inputs = spec.features if self.core is not None else spec.layer_sizes[0]
        sizes = (inputs, *(spec.network.hidden_sizes if critic_sizes is None else critic_sizes), 1)
        self.critic = perceptron(sizes, spec.network.activation, 1.0, spec.network.layer_norm) if has_critic else None

    def value(self, observations: Tensor) -> Tensor:
        """v(o): [B, inputs] -> [B]; zeros without a critic."""
        if self.critic is None:
            return torch.zeros_like(observations[:, 0])
        values: Tensor = self.critic(observations).squeeze(1)
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
        parameters = self.parameters_of(observations, allows)
        values = self.value(observations)
        log_probs, entropies = self.distribution.evaluate(parameters, actions)
        return Outputs(log_probs, entropies, values)
