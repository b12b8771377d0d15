"""The policy's network in torch: the twin of the one that acts in numpy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from actors.episode import Array
from actors.errors import UserError
from actors.layers import LAYER_NORM_EPS
from actors.masks import FORBIDDEN
from actors.pictures import pictures_in
from actors.policy import NORMALIZED_LIMIT
from actors.spec import PolicySpec
from learner.networks.cores import TorchCore
from learner.networks.distributions import DISTRIBUTIONS
from learner.networks.encoder import Encoder
from learner.networks.transformer import TorchTransformer

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


class LayerNorm(nn.Module):
    """A layer's units normalised to mean 0 and standard deviation 1, scaled and shifted: [B, units] -> [B, units].

    Written out, since PyTorch's own is one operation that a recorded step cannot take apart.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(units)), nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """(x − mean) / √(variance + ε) · scale + shift (Ba et al. 2016, arXiv:1607.06450)."""
        centred = x - x.mean(1, keepdim=True)
        deviation = (centred.square().mean(1, keepdim=True) + LAYER_NORM_EPS).sqrt()
        return centred / deviation * self.scale + self.shift


def perceptron(sizes: tuple[int, ...], activation: str, last_gain: float, layer_norm: bool = False) -> nn.Sequential:
    """Linear layers with activations between them, orthogonal weights and zero biases (Andrychowicz et al. 2021).

    Args:
        sizes: units from input to output.
        activation: a key of the policy's activations.
        last_gain: scale of the output layer: small for a policy, so that it starts near uniform.
        layer_norm: normalise each hidden layer before its activation.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        is_last = i == len(sizes) - 2
        linear = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, last_gain if is_last else math.sqrt(2))
        nn.init.zeros_(linear.bias)
        layers.append(linear)
        if not is_last:
            layers += [LayerNorm(fan_out)] if layer_norm else []
            layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class TorchPolicy(nn.Module):
    """A policy for one spec; the same arithmetic as Policy, in torch. What else an algorithm learns is a subclass's.

    A subclass makes its own modules after these: a policy's parameters come first in the learner's vector.

    Args:
        spec: of the policy.
        last_gain: scale of the output layer's initial weights.
        outputs: numbers that the actor gives; None: as the policy's network.
    """

    def __init__(self, spec: PolicySpec, last_gain: float = 0.01, outputs: int | None = None) -> None:
        super().__init__()
        self.distribution = DISTRIBUTIONS[spec.distribution].of(spec)
        self.encoder = Encoder(spec) if any(pictures_in(spec.seen)) else None
        sizes = (*spec.layer_sizes[:-1], spec.layer_sizes[-1] if outputs is None else outputs)
        self.actor = perceptron(sizes, spec.network.activation, last_gain, spec.network.layer_norm)
        self.core: TorchCore | TorchTransformer | None = None
        if spec.network.memory != "none":
            self.core = TorchTransformer(spec) if spec.network.memory == "transformer" else TorchCore(spec)
            self.actor[-1] = perceptron((spec.features, sizes[-1]), spec.network.activation, last_gain)[0]
        self._weight_names = [name for name in spec.weight_shapes() if not name.startswith("observation_")]
        self._statistics: tuple[Tensor, Tensor] | None = None

    @property
    def num_policy_parameters(self) -> int:
        """Numbers of the learner's vector that the policy is made of; they come first."""
        parts = (self.distribution, self.encoder, self.actor, self.core)
        return sum(own.numel() for part in parts if part is not None for own in part.parameters())

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics of observations, [inputs] each, that ``standardised`` uses; later ones in their place."""
        if self._statistics is None:
            self._statistics = mean.clone(), std.clone()
        else:
            self._statistics[0].copy_(mean)
            self._statistics[1].copy_(std)

    def standardised(self, encoded: Tensor) -> Tensor:
        """Observations as networks take them, of [B, inputs] as a memory keeps them: as statistics are now."""
        if self._statistics is None:
            return encoded
        mean, std = self._statistics
        return ((encoded - mean) / std).clamp(-NORMALIZED_LIMIT, NORMALIZED_LIMIT).float()

    def encoded(self, observations: Tensor) -> Tensor:
        """What its layers see of observations: [B, features]; these themselves, [B, inputs], but for pictures."""
        return observations if self.encoder is None else self.encoder(observations)

    def hidden(self, observations: Tensor) -> Tensor:
        """Its last hidden layer, activated: [B, H]; what it is encoded to where there is none."""
        hidden: Tensor = self.actor[:-1](self.encoded(observations))
        return hidden

    def parameters_of(self, observations: Tensor, allows: Tensor | None = None) -> Tensor:
        """The distribution's parameters, [B, A] or [B, P], for observations [B, inputs] and masks [B, A] bool."""
        return self.parameters_after(self.hidden(observations), allows)

    def parameters_after(self, features: Tensor, allows: Tensor | None = None) -> Tensor:
        """The same for what the output layer reads, [B, features]: the last hidden layer, or what a memory gives."""
        parameters = self.distribution.complete(self.actor[-1](features), features)
        return parameters if allows is None else torch.where(allows, parameters, FORBIDDEN)

    def value_layers(self) -> list[nn.Linear]:
        """Layers whose outputs are on the scale of rewards: values are linear in their weights."""
        return []

    def catch_up(self) -> None:
        """Have what follows the weights, such as a target network, be where they are, once they were taken over."""

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
            for name, parameter in self._named():
                parameter.copy_(torch.from_numpy(weights[name].copy()))

    def policy_weights(self) -> dict[str, Array]:
        """The weights by the names that Policy gives them, copied to numpy."""
        named = itertools.chain(self._named(), self.distribution.named_buffers())
        weights = {name: np.array(own.detach().cpu().numpy(), order="C") for name, own in named}
        return {name: weights[name] for name in self._weight_names}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """What is learned, by the names that Policy gives it, in its layout."""
        if self.encoder is not None:
            yield from self.encoder.named_weights()
        for i, linear in enumerate(layer for layer in self.actor if isinstance(layer, nn.Linear)):
            yield f"w{i}", linear.weight.T
            yield f"b{i}", linear.bias
        for i, norm in enumerate(layer for layer in self.actor if isinstance(layer, LayerNorm)):
            yield f"scale{i}", norm.scale
            yield f"shift{i}", norm.shift
        if self.core is not None:
            yield from self.core.named_weights()
        yield from self.distribution.named_parameters()
