"""Action values, and the target network that they are learned towards."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from actors.episode import Array
from actors.masks import FORBIDDEN
from actors.spec import PolicySpec
from learner.networks.torch_policy import TorchPolicy


class ActionValues(nn.Module):
    """Quantiles of each action's return, in one stream or in two, of states and of actions.

    Args:
        trunk: the layers before the last.
        last: [B, units] -> [B, A · N].
        value: [B, units] -> [B, N], the second stream; None: there is one.
        num_actions: A.
    """

    def __init__(self, trunk: nn.Sequential, last: nn.Linear, value: nn.Linear | None, num_actions: int) -> None:
        super().__init__()
        self.trunk, self.last, self.value = trunk, last, value
        self._shape = num_actions, last.out_features // num_actions

    def forward(self, observations: Tensor) -> Tensor:
        """[B, A, N] for observations [B, inputs]; with two streams v + a − mean a (Wang et al. 2016, eq. 9)."""
        hidden: Tensor = self.trunk(observations)
        quantiles: Tensor = self.last(hidden).unflatten(1, self._shape)
        if self.value is None:
            return quantiles
        value: Tensor = self.value(hidden)
        return value[:, None] + quantiles - quantiles.mean(1, keepdim=True)

    def folded(self) -> tuple[Tensor, Tensor]:
        """The last layer that gives the mean over quantiles of each action: weights [units, A], biases [A]."""

        def fold(last: Tensor, value: Tensor | None) -> Tensor:
            quantiles: Tensor = last.detach().unflatten(0, self._shape)
            if value is not None:
                quantiles = value.detach() + quantiles - quantiles.mean(0, keepdim=True)
            return quantiles.mean(1)

        value = (None, None) if self.value is None else (self.value.weight, self.value.bias)
        return fold(self.last.weight, value[0]).T, fold(self.last.bias, value[1])


class QNetwork(TorchPolicy):
    """q(o, a) of each action, as one number or as quantiles of its return, maybe by dueling streams.

    What acts has neither: means over quantiles, and dueling's sum, are linear, and go into its last layer.

    Args:
        spec: of the policy.
        dueling: learn a value and advantages (Wang et al. 2016, arXiv:1511.06581).
        n_quantiles: N, of each action's return (Dabney et al. 2018, arXiv:1710.10044).
        has_target: whether there is a second network, which follows.
    """

    def __init__(self, spec: PolicySpec, dueling: bool = False, n_quantiles: int = 1, has_target: bool = True) -> None:
        num_actions, self._n_quantiles = spec.layer_sizes[-1], n_quantiles
        super().__init__(spec, last_gain=1.0, outputs=num_actions * n_quantiles)
        value = None
        if dueling:
            value = nn.Linear(spec.layer_sizes[-2], n_quantiles)
            nn.init.orthogonal_(value.weight)
            nn.init.zeros_(value.bias)
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        self._last_name = len(spec.network.hidden_sizes)
        before: list[nn.Module] = [*([self.encoder] if self.encoder else []), *[*self.actor][:-1]]
        self.online = ActionValues(nn.Sequential(*before), last, value, num_actions)
        self.target = copy.deepcopy(self.online).requires_grad_(False) if has_target else self.online

    def quantiles(self, observations: Tensor, of_target: bool = False) -> Tensor:
        """[B, A, N] for observations [B, inputs]; N is 1 where q is one number."""
        quantiles: Tensor = (self.target if of_target else self.online)(observations)
        return quantiles

    def q_values(self, observations: Tensor, allows: Tensor | None = None, of_target: bool = False) -> Tensor:
        """[B, A] for observations [B, inputs]; those that a mask [B, A] forbids are lower than any."""
        values = self.quantiles(observations, of_target).mean(2)
        return values if allows is None else torch.where(allows, values, FORBIDDEN)

    def value_layers(self) -> list[nn.Linear]:
        """The last of each stream."""
        return [self.online.last, *([] if self.online.value is None else [self.online.value])]

    def catch_up(self) -> None:
        """The target is what is learned."""
        with torch.no_grad():
            self.follow(1.0)

    def follow(self, tau: float) -> None:
        """Move the target network's weights by a share τ towards the learned ones: 1 copies them."""
        torch._foreach_lerp_([*self.target.parameters()], [own.detach() for own in self.online.parameters()], tau)

    @property
    def num_policy_parameters(self) -> int:
        """All that is learned: there is nothing beside the values."""
        return sum(own.numel() for own in self.online.parameters())

    def policy_weights(self) -> dict[str, Array]:
        """The weights by the names that Policy gives them, with one output for each action."""
        w, b = self.online.folded()
        last = {f"w{self._last_name}": w, f"b{self._last_name}": b}
        return super().policy_weights() | {name: np.array(own.cpu().numpy(), order="C") for name, own in last.items()}

    def load_policy_weights(self, weights: dict[str, Array]) -> None:
        """Take over the weights of a policy of the same shape: each quantile is its q-value, and so the target is."""
        names = [f"{kind}{self._last_name}" for kind in "wb"]
        last = {name: weights[name].repeat(self._n_quantiles, axis=-1) for name in names}
        super().load_policy_weights(weights | last)
        with torch.no_grad():
            if self.online.value is not None:
                for name, own in zip(names, self.online.value.parameters(), strict=True):
                    own.copy_(torch.from_numpy(np.asarray(weights[name].mean(-1))).expand_as(own))
        self.catch_up()
