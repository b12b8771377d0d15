"""A squashed Gaussian policy, twin critics of its actions, and the temperature of its entropy."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from actors.pictures import pictures_in
from actors.spec import PolicySpec
from learner.networks.config import Critic
from learner.networks.encoder import Encoder
from learner.networks.torch_policy import TorchPolicy, perceptron


class TwinCritics(nn.Module):
    """q(o, a), twice: two networks that share nothing but what they see of pictures, which is not the policy's.

    Args:
        spec: of the policy.
        hidden: units of each one's hidden layers.
    """

    def __init__(self, spec: PolicySpec, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = Encoder(spec) if any(pictures_in(spec.seen)) else None
        network, sizes = spec.network, (spec.layer_sizes[0] + spec.action.inputs, *hidden, 1)
        self.twins = nn.ModuleList(perceptron(sizes, network.activation, 1.0, network.layer_norm) for _ in range(2))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """[B, 2] for observations [B, inputs], or pictures, and actions [B, A] from -1 to 1."""
        seen = observations if self.encoder is None else self.encoder(observations)
        inputs = torch.cat([seen, actions], dim=1)
        return torch.cat([twin(inputs) for twin in self.twins], dim=1)


class Temperature(nn.Module):
    """The weight α of the policy's entropy, by its logarithm."""

    def __init__(self, initial: float, is_learned: bool) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor(math.log(initial)), requires_grad=is_learned)


class SoftActorCritic(TorchPolicy):
    """π(a | o), q(o, a) twice and once more as targets, and the temperature α.

    Args:
        spec: of the policy.
        critic: the hidden layers of both.
        ent_coef_init: α at first.
        learns_ent_coef: whether α is learned.
    """

    def __init__(self, spec: PolicySpec, critic: Critic, ent_coef_init: float, learns_ent_coef: bool) -> None:
        super().__init__(spec)
        self.critics = TwinCritics(spec, spec.network.hidden_sizes if critic.sizes is None else critic.sizes)
        self.temperature = Temperature(ent_coef_init, learns_ent_coef)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)

    def held_critics(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What the critics say, [B, 2], with no gradient for their own weights: what a policy climbs."""
        held = {name: own.detach() for name, own in self.critics.named_parameters()}
        values: Tensor = torch.func.functional_call(self.critics, held, (observations, actions))
        return values

    def value_layers(self) -> list[nn.Linear]:
        """The last of both critics."""
        return [twin[-1] for twin in self.critics.twins]  # type: ignore[index]

    def catch_up(self) -> None:
        """The targets are the critics."""
        with torch.no_grad():
            self.follow(1.0)

    def follow(self, tau: float) -> None:
        """Move the targets' weights by a share τ towards the critics': 1 copies them."""
        torch._foreach_lerp_([*self.target.parameters()], [own.detach() for own in self.critics.parameters()], tau)
