"""The networks: a policy and, where the preset has one, a critic; two multilayer perceptrons that share nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from actors.episode import Array
from actors.policy import PolicySpec
from learner.losses import Outputs

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def perceptron(sizes: tuple[int, ...], activation: str, last_gain: float) -> nn.Sequential:
    """Linear layers with activations between them, orthogonal weights and zero biases (Andrychowicz et al. 2021).

    Args:
        sizes: units from input to output.
        activation: a key of the policy's activations.
        last_gain: scale of the output layer: small for a policy, so that it starts near uniform.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        is_last = i == len(sizes) - 2
        linear = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, last_gain if is_last else math.sqrt(2))
        nn.init.zeros_(linear.bias)
        layers += [linear] if is_last else [linear, _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class ActorCritic(nn.Module):
    """π(a | o) and v(o) for one policy spec; the same arithmetic as Policy, in torch."""

    def __init__(self, spec: PolicySpec, has_critic: bool, critic_sizes: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.actor = perceptron(spec.layer_sizes, spec.activation, last_gain=0.01)
        inputs = spec.layer_sizes[0]
        sizes = (inputs, *(spec.hidden_sizes if critic_sizes is None else critic_sizes), 1)
        self.critic = perceptron(sizes, spec.activation, last_gain=1.0) if has_critic else None
        if spec.actions == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(spec.action_size))

    def value(self, observations: Tensor) -> Tensor:
        """v(o): [B, inputs] -> [B]; zeros without a critic."""
        if self.critic is None:
            return torch.zeros_like(observations[:, 0])
        values: Tensor = self.critic(observations).squeeze(1)
        return values

    def forward(self, observations: Tensor, actions: Tensor) -> Outputs:
        """Evaluate steps that were flown: observations [B, inputs], actions [B] or [B, A]."""
        parameters = self.actor(observations)
        values = self.value(observations)
        if self.spec.actions == "categorical":
            log_probs = torch.log_softmax(parameters, dim=1)
            entropies = -(log_probs.exp() * log_probs).sum(1)
            return Outputs(log_probs.gather(1, actions.unsqueeze(1)).squeeze(1), entropies, values)
        z = (actions - parameters) * torch.exp(-self.log_std)
        log_densities = (-0.5 * z.square() - self.log_std - _LOG_SQRT_2PI).sum(1)
        entropy = (self.log_std + _LOG_SQRT_2PI + 0.5).sum()
        return Outputs(log_densities, entropy.expand_as(log_densities), values)

    def policy_weights(self) -> dict[str, Array]:
        """The weights by the names that Policy gives them, copied to numpy."""
        weights: dict[str, Array] = {}
        linears = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
        for i, linear in enumerate(linears):
            weights[f"w{i}"] = np.ascontiguousarray(linear.weight.detach().cpu().numpy().T)
            weights[f"b{i}"] = linear.bias.detach().cpu().numpy().copy()
        if self.spec.actions == "gaussian":
            weights["log_std"] = self.log_std.detach().cpu().numpy().copy()
        return weights
