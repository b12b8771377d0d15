"""The policy's network in torch: the twin of the one that acts in numpy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from actors.episode import Array
from actors.errors import UserError
from actors.masks import FORBIDDEN
from actors.spec import PolicySpec
from learner.networks.distributions import DISTRIBUTIONS

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


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


class TorchPolicy(nn.Module):
    """A policy for one spec; the same arithmetic as Policy, in torch. What else an algorithm learns is a subclass's.

    A subclass makes its own modules after these: a policy's parameters come first in the learner's vector.
    """

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.distribution = DISTRIBUTIONS[spec.distribution](spec)
        self.actor = perceptron(spec.layer_sizes, spec.network.activation, last_gain=0.01)

    def parameters_of(self, observations: Tensor, allows: Tensor | None = None) -> Tensor:
        """The distribution's parameters, [B, A] or [B, P], for observations [B, inputs] and masks [B, A] bool."""
        if self.distribution.sees_hidden:
            hidden = self.actor[:-1](observations)
            return self.distribution.complete(self.actor[-1](hidden), hidden)
        parameters: Tensor = self.actor(observations)
        return parameters if allows is None else torch.where(allows, parameters, FORBIDDEN)

    def load_policy_weights(self, weights: dict[str, Array]) -> None:
        """Take over the weights of a policy of the same shape.

        Raises:
            UserError: its distribution over actions has other weights than this one's.
        """
        for name, own in self.distribution.named_parameters():
            if name not in weights or weights[name].shape != own.shape:
                has = weights[name].shape if name in weights else "missing"
                raise UserError(
                    f"the policy to start from has another distribution over actions: its {name} is {has}, the run's "
                    f"{tuple(own.shape)}; one that explores with gSDE can be flown and served, and not trained further"
                )
        with torch.no_grad():
            for i, linear in enumerate(layer for layer in self.actor if isinstance(layer, nn.Linear)):
                linear.weight.copy_(torch.from_numpy(weights[f"w{i}"].T.copy()))
                linear.bias.copy_(torch.from_numpy(weights[f"b{i}"].copy()))
            for name, own in self.distribution.named_parameters():
                own.copy_(torch.from_numpy(weights[name].copy()))

    def policy_weights(self) -> dict[str, Array]:
        """The weights by the names that Policy gives them, copied to numpy."""
        weights: dict[str, Array] = {}
        linears = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
        for i, linear in enumerate(linears):
            weights[f"w{i}"] = np.ascontiguousarray(linear.weight.detach().cpu().numpy().T)
            weights[f"b{i}"] = linear.bias.detach().cpu().numpy().copy()
        for name, own in self.distribution.named_parameters():
            weights[name] = own.detach().cpu().numpy().copy()
        return weights
