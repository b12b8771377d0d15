"""A table of action values, a row for each observation: the policy's only layer, without a bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actors.spec import PolicySpec
from learner.networks.torch_policy import TorchPolicy


class Table(TorchPolicy):
    """q(s, a) for each of S observations and A actions.

    Args:
        spec: of the policy, which has no hidden layer.
        initial_value: of all of them.
    """

    visits: Tensor
    """[S · A]: how often each was learned from."""

    def __init__(self, spec: PolicySpec, initial_value: float) -> None:
        super().__init__(spec)
        (layer,) = self.actor
        assert isinstance(layer, nn.Linear)
        nn.init.constant_(layer.weight, initial_value)
        layer.bias.requires_grad_(False)
        self._layer = layer
        self.register_buffer("visits", torch.zeros(layer.weight.numel()))

    def value_layers(self) -> list[nn.Linear]:
        """The table."""
        return [self._layer]

    @property
    def q_values(self) -> Tensor:
        """[S, A]."""
        return self._layer.weight.T

    def cells(self, states: Tensor, actions: Tensor) -> Tensor:
        """Where pairs [B] are in ``visits``: [B] int64."""
        return states * self._layer.out_features + actions
