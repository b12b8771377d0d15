"""Action distributions in numpy: what an actor needs to act, to show what it makes of it, and to say how likely it was.

Each samples by a deterministic function of (parameters, noise), so that a rollout draws the noise of many steps in one
call, and computes log-probabilities for all its steps at once when it ends. ``learner/distributions.py`` is their form
in torch, where they are learned.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from actors.action_bounds import ActionBounds
from actors.episode import Array
from actors.errors import NonFiniteError, UserError

if TYPE_CHECKING:
    from actors.policy import PolicySpec

_LOG_SQRT_2PI = float(0.5 * np.log(2 * np.pi))


class Distribution(ABC):
    """A family of distributions over actions; ``parameters`` are the policy network's outputs, [B, A]."""

    noun = "action"
    """What one of the A numbers is: an action, or a component of one."""

    @classmethod
    @abstractmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Distribution:
        """That of a policy.

        Raises:
            NonFiniteError: a weight of it stands for an infinity.
        """

    @classmethod
    @abstractmethod
    def check(cls, spec: PolicySpec) -> None:
        """Make sure that a policy can have it.

        Raises:
            UserError: its fields contradict one another.
        """

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:  # noqa: ARG003
        """The shapes of its own weights, by name, beside the network's; it has none unless it says so."""
        return {}

    @abstractmethod
    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Noise for ``shape`` samples: [*shape, A] float32."""

    @abstractmethod
    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """One action a row: a ~ π(· | o); the most likely one where there is no noise, or all of it is 0."""

    @abstractmethod
    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """log π(a | o) of actions as they were sampled: [B] float32."""

    def notes(self, parameters: Array, actions: Array) -> dict[str, Array]:
        """What a learner has to know later of how actions were chosen, by name: [B, …] each."""
        return {"log_prob": self.log_prob(parameters, actions)}

    def flyable(self, actions: Array) -> Array:
        """Actions as the environment takes them, of actions as they were sampled."""
        return actions

    @abstractmethod
    def shown(self, parameters: Array) -> dict[str, Array]:
        """What a person may see of it, by name, a row for each: what ``/act`` answers beside the action."""

    @property
    def shown_once(self) -> dict[str, Array]:
        """What else a person may see, which no observation changes."""
        return {}


class Categorical(Distribution):
    """Discrete actions; the parameters are logits, [B, A]."""

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Categorical:  # noqa: ARG003
        """That of a policy, which has no weights for it."""
        return cls(spec.action_size)

    @classmethod
    def check(cls, spec: PolicySpec) -> None:
        """Make sure that a policy speaks of nothing that only continuous actions have."""
        if spec.action_low or spec.action_high or spec.action_shape:
            raise UserError(
                "action_low, action_high and action_shape are of continuous actions, and these are discrete"
            )

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard Gumbel noise: arg max(logits + noise) is then a sample (Gumbel, 1954)."""
        return -np.log(np.maximum(rng.standard_exponential((*shape, self.num_actions), dtype=np.float32), 1e-30))

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B] int64."""
        return np.asarray((parameters if noise is None else parameters + noise).argmax(axis=-1))

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32."""
        return np.take_along_axis(self._log_softmax(parameters), actions[..., None], axis=-1)[..., 0]

    def probabilities(self, parameters: Array) -> Array:
        """[B, A] float32, rows that sum to 1."""
        return np.exp(self._log_softmax(parameters))

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The probabilities, [B, A], to seven digits: those beyond are not float32's."""
        return {"probabilities": self.probabilities(parameters).astype(np.float64).round(7)}

    @staticmethod
    def _log_softmax(logits: Array) -> Array:
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


class Gaussian(Distribution):
    """Continuous actions, independent components; the parameters are means, [B, A], with one log σ for all states.

    Args:
        log_std: [A].
        bounds: where actions may lie when they are flown.
        shape: of one action, when it is flown.
    """

    noun = "component"

    def __init__(self, log_std: Array, bounds: ActionBounds, shape: tuple[int, ...]) -> None:
        self.log_std, self.bounds, self.shape = log_std, bounds, shape
        with np.errstate(over="ignore"):
            self.std = np.exp(log_std)
        if not np.isfinite(self.std).all():
            raise NonFiniteError("policy weight log_std is of an infinite standard deviation")

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Gaussian:
        """That of a policy, which has its log σ among its weights.

        Raises:
            NonFiniteError: a σ is infinite.
        """
        bounds = ActionBounds(spec.action_low, spec.action_high, spec.scale_actions)
        return cls(weights["log_std"], bounds, spec.action_shape)

    @classmethod
    def check(cls, spec: PolicySpec) -> None:
        """Make sure that bounds and shape are such that actions can have them."""
        bounds = np.array([spec.action_low, spec.action_high], np.float64)
        if bounds.shape != (2, spec.action_size):
            raise UserError(f"action_low and action_high must be {spec.action_size} numbers each")
        low, high = bounds
        beyond = np.isfinite(bounds) & (np.abs(bounds) > np.finfo(np.float32).max)
        if beyond.any() or not ((low <= high) & (low < np.inf) & (high > -np.inf)).all():
            raise UserError("action_low must be at most action_high, and both numbers of 32-bit floats")
        if math.prod(spec.action_shape) != spec.action_size:
            raise UserError(f"action_shape {spec.action_shape} does not have {spec.action_size} components")

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """log σ of each component."""
        return {"log_std": (spec.action_size,)}

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard normal noise."""
        return rng.standard_normal((*shape, len(self.log_std)), dtype=np.float32)

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B, A] float32, unbounded; the means where there is no noise."""
        return parameters if noise is None else np.asarray(parameters + self.std * noise)

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over components of log N(a; μ, σ²)."""
        z = (actions - parameters) / self.std
        return np.asarray((-0.5 * z * z - self.log_std - _LOG_SQRT_2PI).sum(axis=-1, dtype=np.float32))

    def flyable(self, actions: Array) -> Array:
        """[B, *shape] float32, within the bounds."""
        return self.bounds.actions(actions).reshape(len(actions), *self.shape)

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The means, [B, A] in the actions' units, before clipping."""
        return {"mean": self.bounds.place(parameters)}

    @property
    def shown_once(self) -> dict[str, Array]:
        """The standard deviations, [A] in the actions' units."""
        return {"std": self.bounds.scale * self.std}


DISTRIBUTIONS: dict[str, type[Distribution]] = {"categorical": Categorical, "gaussian": Gaussian}
"""By the name that a policy's spec has for them."""
