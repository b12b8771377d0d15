"""The action distributions of ``actors/distributions.py`` in torch, where they are learned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from actors.gaussians import LOG_STD_RANGE, VARIANCE_FLOOR
from actors.joint import places
from actors.masks import FORBIDDEN
from actors.parts import Parts, leaf_spaces, num_continuous
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.spec import PolicySpec

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class TorchDistribution(nn.Module, ABC):
    """A distribution over actions; its own parameters, by name, are among the policy's weights.

    Args:
        action: what it is over.
    """

    max_entropy: float
    """The entropy of the uniform policy in nats; 1 where it is 0, or where entropies have no bound."""
    sees_hidden = False
    """Whether its parameters are those of ``complete``."""

    def __init__(self, action: Space) -> None:
        super().__init__()
        self.max_entropy = _uniform_entropy(action) or 1.0

    @classmethod
    def of(cls, spec: PolicySpec) -> Self:
        """That of a policy, with its own parameters where training begins."""
        return cls(spec.action)

    def complete(self, outputs: Tensor, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Its parameters, [B, P], of the network's outputs, [B, A], and its last hidden layer, [B, H], activated."""
        return outputs

    @abstractmethod
    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a | o) of actions as they were sampled, and H(π(· | o)) in nats: [B] each, for [B, A] parameters."""


class Categorical(TorchDistribution):
    """Discrete actions, [B] int64."""

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a | o) and entropy of the softmax of the parameters: [B] each."""
        return _softmax(parameters, actions)


class EpsilonGreedy(TorchDistribution):
    """Discrete actions, [B] int64; the most valued one but for a share ε, which the learner sets."""

    epsilon: Tensor
    """[1]."""

    def __init__(self, action: Space) -> None:
        super().__init__(action)
        self.register_buffer("epsilon", torch.zeros(1))

    def probabilities(self, q_values: Tensor) -> Tensor:
        """[B, A]: ε / A of each action that a mask leaves, and 1 − ε more of the most valued one."""
        allowed = (q_values > FORBIDDEN).to(q_values.dtype)
        best = nn.functional.one_hot(q_values.argmax(1), q_values.shape[1])
        return self.epsilon * allowed / allowed.sum(1, keepdim=True) + (1 - self.epsilon) * best

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a | o) and entropy, [B] each; no gradient goes through them."""
        probabilities = self.probabilities(parameters)
        log_probs = probabilities.clamp(min=1e-30).log()
        return log_probs.gather(1, actions[:, None]).squeeze(1), -(probabilities * log_probs).sum(1)


class MultiCategorical(TorchDistribution):
    """Several discrete choices, [B, K] int64."""

    places: Tensor
    """[K, options of the largest choice] int64: where each is among the parameters; past them where there is none."""

    def __init__(self, action: Space) -> None:
        super().__init__(action)
        assert isinstance(action, MultiDiscrete)
        sizes = torch.tensor(action.nvec)
        options = torch.arange(int(sizes.max()))
        places = (sizes.cumsum(0) - sizes)[:, None] + options
        self.register_buffer("places", places.where(options < sizes[:, None], sizes.sum()), persistent=False)

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the softmax of each choice's part of the parameters."""
        padded = nn.functional.pad(parameters, (0, 1), value=FORBIDDEN)  # of choices with fewer options than others
        log_probs, entropies = _softmax(padded[:, self.places], actions)
        return log_probs.sum(1), entropies.sum(1)


class Bernoulli(TorchDistribution):
    """Zeros and ones, [B, A] int8."""

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over independent components with the parameters as their log-odds."""
        one, zero = nn.functional.logsigmoid(parameters), nn.functional.logsigmoid(-parameters)
        entropies = -(one.exp() * one + zero.exp() * zero).sum(1)
        return torch.where(actions > 0, one, zero).sum(1), entropies


class Gaussian(TorchDistribution):
    """Continuous actions, [B, A], with one log σ for all states."""

    def __init__(self, action: Space) -> None:
        super().__init__(action)
        self.log_std = nn.Parameter(torch.zeros(action.inputs))

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a | o) and entropy of independent components with the parameters as their means: [B] each."""
        return _normal(parameters, self.log_std, actions)


class StateDependentGaussian(TorchDistribution):
    """Continuous actions, [B, A], with σ² = h² · exp(log_std)² + 1e-6 of the last hidden layer h.

    As in Stable-Baselines3 σ's gradient goes to log_std alone, not through h.
    """

    sees_hidden = True

    def __init__(self, action: Space, features: int) -> None:
        super().__init__(action)
        self.log_std = nn.Parameter(torch.full((features, action.inputs), -2.0))

    @classmethod
    def of(cls, spec: PolicySpec) -> Self:
        """That of a policy, with as many numbers of noise as its last hidden layer has units."""
        return cls(spec.action, spec.features)

    def complete(self, outputs: Tensor, hidden: Tensor) -> Tensor:
        """Means and standard deviations, [B, 2A]."""
        variances = hidden.detach().square() @ self.log_std.exp().square()
        return torch.cat([outputs, (variances + VARIANCE_FLOOR).sqrt()], dim=1)

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a | o) and entropy of independent components; the parameters are means, then standard deviations."""
        means, stds = parameters.chunk(2, dim=1)
        log_stds = stds.log()
        log_densities = (-0.5 * ((actions - means) / stds).square() - log_stds - _LOG_SQRT_2PI).sum(1)
        return log_densities, (log_stds + _LOG_SQRT_2PI + 0.5).sum(1)


class SquashedGaussian(TorchDistribution):
    """Continuous actions tanh(u), [B, A], u ~ Normal(μ, σ²); the parameters are μ and log σ, [B, 2A]."""

    def sample(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, A] for standard normal noise [B, A], and their log-probabilities [B], to differentiate both.

        log π(a) = Σ log N(u; μ, σ²) − log(1 − tanh² u), with log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)), which
        loses no digits where tanh saturates (Haarnoja et al. 2018, arXiv:1801.01290, eq. 21).
        """
        means, log_stds = self._means_and_log_stds(parameters)
        u = means + log_stds.exp() * noise
        log_normal = -0.5 * noise.square() - log_stds - _LOG_SQRT_2PI
        squash = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
        return u.tanh(), (log_normal - squash).sum(1)

    def _means_and_log_stds(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        means, log_stds = parameters.chunk(2, dim=1)
        return means, log_stds.clamp(*LOG_STD_RANGE)

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a | o) of actions kept off ±1, and −log π in the entropy's place, which has no closed form."""
        means, log_stds = self._means_and_log_stds(parameters)
        inside = actions.clamp(-1 + 1e-6, 1 - 1e-6)
        z = (inside.atanh() - means) / log_stds.exp()
        log_probs = (-0.5 * z.square() - log_stds - _LOG_SQRT_2PI - torch.log1p(-inside.square())).sum(1)
        return log_probs, -log_probs


class Joint(TorchDistribution):
    """Actions of several parts, [B, K], independent; continuous ones have one log σ for all states."""

    means: Tensor
    """[C] int64: where those of continuous components are among the parameters."""
    components: Tensor
    """[C] int64: where continuous components are among an action's numbers."""

    def __init__(self, action: Space) -> None:
        super().__init__(action)
        assert isinstance(action, Parts)
        self._discrete = [place for place in places(action) if not isinstance(place.space, Box)]
        continuous = [place for place in places(action) if isinstance(place.space, Box)]
        self._parts = nn.ModuleList(_DISCRETE[type(place.space)](place.space) for place in self._discrete)
        for name, kind in (("means", "parameters"), ("components", "sampled")):
            columns = [i for place in continuous for i in range(getattr(place, kind).start, getattr(place, kind).stop)]
            self.register_buffer(name, torch.tensor(columns, dtype=torch.int64), persistent=False)
        if continuous:
            self.log_std = nn.Parameter(torch.zeros(len(self.means)))

    def evaluate(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over parts: [B] each."""
        each = []
        for place, part in zip(self._discrete, self._parts, strict=True):
            taken = actions[:, place.sampled].long()
            taken = taken[:, 0] if isinstance(place.space, Discrete) else taken
            each.append(part.evaluate(parameters[:, place.parameters], taken))  # type: ignore[operator]
        if len(self.means):
            means, components = parameters.index_select(1, self.means), actions.index_select(1, self.components)
            each.append(_normal(means, self.log_std, components))
        log_probs, entropies = zip(*each, strict=True)
        return torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0)


_DISCRETE: dict[type[Space], type[TorchDistribution]] = {
    Discrete: Categorical,
    MultiDiscrete: MultiCategorical,
    MultiBinary: Bernoulli,
}


def _normal(means: Tensor, log_std: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    z = (actions - means) * torch.exp(-log_std)
    log_densities = (-0.5 * z.square() - log_std - _LOG_SQRT_2PI).sum(1)
    entropy = (log_std + _LOG_SQRT_2PI + 0.5).sum()
    return log_densities, entropy.expand_as(log_densities)


def _uniform_entropy(action: Space) -> float:
    """In nats; 0 where a part is continuous."""
    if num_continuous(action):
        return 0.0
    entropy = 0.0
    for _, leaf in leaf_spaces(action):
        if isinstance(leaf, MultiBinary):
            entropy += leaf.inputs * math.log(2)
        else:
            entropy += sum(map(math.log, leaf.nvec if isinstance(leaf, MultiDiscrete) else [leaf.inputs]))
    return entropy


def _softmax(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    log_probs = torch.log_softmax(logits, dim=-1)
    entropies = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), entropies


DISTRIBUTIONS: dict[str, type[TorchDistribution]] = {
    "categorical": Categorical,
    "epsilon_greedy": EpsilonGreedy,
    "multi_categorical": MultiCategorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "state_dependent_gaussian": StateDependentGaussian,
    "squashed_gaussian": SquashedGaussian,
    "joint": Joint,
}
"""The torch forms of action distributions, by the names of ``actors.distributions.DISTRIBUTIONS``."""
