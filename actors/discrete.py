"""Distributions over discrete actions, in numpy: one of several, several at once, and switches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actors.distribution import Distribution
from actors.episode import Array
from actors.errors import UserError
from actors.masks import FORBIDDEN
from actors.spaces import Discrete, MultiBinary, MultiDiscrete

if TYPE_CHECKING:
    from actors.spec import PolicySpec

BEYOND_VALUES = np.float32(1e20)
"""More than any q-value, and less than what a mask takes off."""


class Categorical(Distribution):
    """Discrete actions; the parameters are logits, [B, A].

    Args:
        num_actions: A.
        start: the first action's number when it is flown.
    """

    space = Discrete

    def __init__(self, num_actions: int, start: int = 0) -> None:
        self.num_actions, self.start = num_actions, start
        self.labels = [f"action {start + i}" for i in range(num_actions)]

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Categorical:  # noqa: ARG003
        """That of a policy, which has no weights for it."""
        assert isinstance(spec.action, Discrete)
        return cls(spec.action.n, spec.action.start)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard Gumbel noise: arg max(logits + noise) is then a sample (Gumbel, 1954)."""
        return -np.log(np.maximum(rng.standard_exponential((*shape, self.num_actions), dtype=np.float32), 1e-30))

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B] int64."""
        return np.asarray((parameters if noise is None else parameters + noise).argmax(axis=-1))

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32."""
        return np.take_along_axis(_log_softmax(parameters), actions[..., None], axis=-1)[..., 0]

    def chosen(self, action: Array) -> list[int]:
        """The one."""
        return [int(action)]

    def flyable(self, actions: Array) -> Array:
        """[B] int64, from ``start``."""
        return actions + self.start if self.start else actions

    def as_sampled(self, actions: Array) -> Array:
        """[B] int64, from 0."""
        return actions.astype(np.int64) - self.start

    def probabilities(self, parameters: Array) -> Array:
        """[B, A] float32, rows that sum to 1."""
        return np.exp(_log_softmax(parameters))

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The probabilities, [B, A], to seven digits: those beyond are not float32's."""
        return {"probabilities": self.probabilities(parameters).astype(np.float64).round(7)}


class EpsilonGreedy(Categorical):
    """Discrete actions of which the most valued is taken but for a share ε, uniform over all; parameters are q-values.

    Args:
        num_actions: A.
        start: the first action's number when it is flown.
        epsilon: ε.

    Raises:
        UserError: ε is no share.
    """

    unlearned = frozenset({"epsilon"})

    def __init__(self, num_actions: int, start: int, epsilon: float) -> None:
        super().__init__(num_actions, start)
        if not 0 <= epsilon <= 1:
            raise UserError(f"policy weight epsilon must lie between 0 and 1, not {epsilon:g}")
        self.epsilon = epsilon

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> EpsilonGreedy:
        """That of a policy, which has its ε among its weights.

        Raises:
            UserError: ε is no share.
        """
        assert isinstance(spec.action, Discrete)
        return cls(spec.action.n, spec.action.start, float(weights["epsilon"][0]))

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:  # noqa: ARG003
        """ε."""
        return {"epsilon": (1,)}

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Zeros, and for a share ε numbers beside which no q-value counts: arg max(q + noise) is then a sample."""
        noise = np.zeros((*shape, self.num_actions), np.float32)
        explores = rng.random(shape, np.float32) < self.epsilon
        noise[explores] = BEYOND_VALUES * rng.random((int(explores.sum()), self.num_actions), np.float32)
        return noise

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: log(ε / A), with 1 − ε added for the most valued action; A is what a mask leaves."""
        allowed = parameters > FORBIDDEN
        is_allowed = np.take_along_axis(allowed, actions[..., None], axis=-1)[..., 0]
        shares = self.epsilon * is_allowed / allowed.sum(axis=-1)
        shares += (1 - self.epsilon) * (actions == parameters.argmax(axis=-1))
        return np.asarray(np.log(np.maximum(shares, 1e-30), dtype=np.float32))

    def notes(self, parameters: Array, actions: Array) -> dict[str, Array]:  # noqa: ARG002
        """Nothing: what learns by value asks for no probabilities."""
        return {}

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The q-values, [B, A], in the units of the rewards that were learned from."""
        return {"q_values": parameters.astype(np.float64)}


class MultiCategorical(Distribution):
    """Several discrete choices, independent; the parameters are the logits of each, one after another: [B, A].

    Args:
        space: of the actions: their sizes, shape and first numbers.
    """

    space = MultiDiscrete

    def __init__(self, space: MultiDiscrete) -> None:
        sizes = np.array(space.nvec)
        self._starts = np.append(0, np.cumsum(sizes)[:-1])
        self._exists = np.arange(sizes.max()) < sizes[:, None]
        self._places = np.where(self._exists, self._starts[:, None] + np.arange(sizes.max()), sizes.sum())
        self._size = int(sizes.sum())
        self._first, self._shape = space.first, space.shape
        self.labels = [f"choice {i}: {space.first[i] + j}" for i, n in enumerate(space.nvec) for j in range(n)]

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> MultiCategorical:  # noqa: ARG003
        """That of a policy, which has no weights for it."""
        assert isinstance(spec.action, MultiDiscrete)
        return cls(spec.action)

    def _of_choices(self, parameters: Array, beyond: float = FORBIDDEN) -> Array:
        """[B, K, options of the largest choice]; ``beyond`` where a choice has fewer."""
        last = np.full((len(parameters), 1), beyond, parameters.dtype)
        return np.concatenate([parameters, last], axis=1)[:, self._places]

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard Gumbel noise for each choice of each."""
        return Categorical(self._size).noise(rng, shape)

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B, K] int64, each from 0."""
        return np.asarray(self._of_choices(parameters if noise is None else parameters + noise).argmax(axis=-1))

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over choices."""
        each = _log_softmax(self._of_choices(parameters))
        return np.asarray(np.take_along_axis(each, actions[..., None], axis=-1)[..., 0].sum(axis=-1))

    def chosen(self, action: Array) -> list[int]:
        """One of each choice."""
        return [int(place) for place in action + self._starts]

    def can_act(self, allows: Array) -> Array:
        """Those that leave something to each choice."""
        return np.asarray(self._of_choices(allows, beyond=False).any(axis=-1).all(axis=-1))

    def flyable(self, actions: Array) -> Array:
        """[B, *shape] int64, each from its own first number."""
        return (actions + self._first).reshape(len(actions), *self._shape)

    def as_sampled(self, actions: Array) -> Array:
        """[B, K] int64, each from 0."""
        return actions.reshape(len(actions), -1).astype(np.int64) - self._first

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The probabilities of each choice, one after another, [B, A], to seven digits."""
        probabilities = np.exp(_log_softmax(self._of_choices(parameters)))[:, self._exists]
        return {"probabilities": probabilities.astype(np.float64).round(7)}


class Bernoulli(Distribution):
    """Zeros and ones, independent; the parameters are log-odds of a one, [B, A].

    Args:
        shape: of one action, when it is flown.
    """

    space = MultiBinary

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape, self._size = shape, math.prod(shape)
        self.labels = [f"switch {i}" for i in range(self._size)]

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Bernoulli:  # noqa: ARG003
        """That of a policy, which has no weights for it."""
        return cls(spec.action.shape)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard logistic noise: log-odds + noise > 0 is then a sample."""
        uniform = np.clip(rng.random((*shape, self._size), np.float32), 1e-7, 1 - 1e-7)
        return np.log(uniform) - np.log1p(-uniform)

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B, A] int8."""
        return np.asarray((parameters if noise is None else parameters + noise) > 0, np.int8)

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over switches of log σ(±log-odds)."""
        surprises = np.logaddexp(np.float32(0), np.where(actions > 0, -parameters, parameters))
        return np.asarray(-surprises.sum(axis=-1))

    def chosen(self, action: Array) -> list[int]:
        """Those that are on."""
        return [int(place) for place in np.flatnonzero(action)]

    def can_act(self, allows: Array) -> Array:
        """All: a switch that may not be on is off."""
        return np.ones(len(allows), bool)

    def flyable(self, actions: Array) -> Array:
        """[B, *shape] int8."""
        return actions.reshape(len(actions), *self._shape)

    def as_sampled(self, actions: Array) -> Array:
        """[B, A] int8."""
        return actions.reshape(len(actions), -1).astype(np.int8)

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The probabilities of a one, [B, A], to seven digits."""
        return {"probabilities": np.exp(-np.logaddexp(0, -parameters.astype(np.float64))).round(7)}


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
