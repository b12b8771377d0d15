"""Normal distributions over continuous actions, in numpy: with one σ for all states, and with one for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actors.action_bounds import ActionBounds
from actors.distribution import Distribution
from actors.episode import Array
from actors.errors import NonFiniteError, UserError
from actors.spaces import Box

if TYPE_CHECKING:
    from actors.spec import PolicySpec

VARIANCE_FLOOR = 1e-6
"""What Stable-Baselines3 adds to a variance that depends on the state."""
LOG_STD_RANGE = (-20.0, 2.0)
"""Where a squashed Gaussian's log σ may lie, as in Haarnoja's code and Stable-Baselines3."""
_LOG_SQRT_2PI = float(0.5 * np.log(2 * np.pi))


class Gaussian(Distribution):
    """Continuous actions, independent components; the parameters are means, [B, A], with one log σ for all states.

    Args:
        log_std: [A].
        bounds: where actions may lie when they are flown.
        shape: of one action, when it is flown.
    """

    space = Box

    def __init__(self, log_std: Array, bounds: ActionBounds, shape: tuple[int, ...]) -> None:
        self.log_std, self.bounds, self.shape = log_std, bounds, shape
        self.labels = [f"component {i}" for i in range(log_std.shape[-1])]
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
        assert isinstance(spec.action, Box)
        bounds = ActionBounds(spec.action.low, spec.action.high, spec.scale_actions)
        return cls(weights["log_std"], bounds, spec.action.shape)

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """log σ of each component."""
        return {"log_std": (cls.size(spec),)}

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard normal noise."""
        return rng.standard_normal((*shape, self.log_std.shape[-1]), dtype=np.float32)

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

    def as_sampled(self, actions: Array) -> Array:
        """[B, A] float32, what is scaled between -1 and 1."""
        return self.bounds.numbers(actions.reshape(len(actions), -1))

    def shown(self, parameters: Array) -> dict[str, Array]:
        """The means, [B, A] in the actions' units, before clipping."""
        return {"mean": self.bounds.place(parameters)}

    @property
    def shown_once(self) -> dict[str, Array]:
        """The standard deviations, [A] in the actions' units."""
        return {"std": self.bounds.scale * self.std}


class StateDependentGaussian(Gaussian):
    """Continuous actions whose σ depends on the state, as gSDE explores (Raffin et al. 2021, arXiv:2005.05719).

    gSDE adds to the means hᵀE, h the last hidden layer and E a matrix of normal noise that is kept for some steps. At
    any one step the action is then Normal(μ, σ²) with σ² = h² · exp(log_std)² + 1e-6, which is what is sampled here,
    anew at each step. The parameters are means and standard deviations side by side, [B, 2A].

    Args:
        log_std: [H, A], the logarithm of E's standard deviations.
        bounds: where actions may lie when they are flown.
        shape: of one action, when it is flown.
    """

    sees_hidden = True

    def __init__(self, log_std: Array, bounds: ActionBounds, shape: tuple[int, ...]) -> None:
        super().__init__(log_std, bounds, shape)
        with np.errstate(over="ignore"):
            self.variances = np.square(self.std)
        if not np.isfinite(self.variances).all():
            raise NonFiniteError("policy weight log_std is of an infinite variance")

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """log σ of the noise on each unit's way to each component.

        Raises:
            UserError: the network has no hidden layer.
        """
        if not spec.network.hidden_sizes:
            raise UserError("noise that depends on the state is of a network's last hidden layer; this one has none")
        return {"log_std": (spec.features, cls.size(spec))}

    def complete(self, outputs: Array, hidden: Array) -> Array:
        """Means and standard deviations, [B, 2A] float32."""
        stds = np.sqrt(np.square(hidden) @ self.variances + np.float32(VARIANCE_FLOOR))
        return np.concatenate([outputs, stds], axis=-1)

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B, A] float32, unbounded; the means where there is no noise."""
        means, stds = np.split(parameters, 2, axis=-1)
        return means if noise is None else np.asarray(means + stds * noise)

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over components of log N(a; μ, σ²)."""
        means, stds = np.split(parameters, 2, axis=-1)
        z = (actions - means) / stds
        return np.asarray((-0.5 * z * z - np.log(stds) - _LOG_SQRT_2PI).sum(axis=-1, dtype=np.float32))

    def shown(self, parameters: Array) -> dict[str, Array]:
        """Means before clipping and standard deviations, [B, A] each in the actions' units."""
        means, stds = np.split(parameters, 2, axis=-1)
        return {"mean": self.bounds.place(means), "std": np.asarray(self.bounds.scale * stds)}

    @property
    def shown_once(self) -> dict[str, Array]:
        """Nothing: each observation has standard deviations of its own."""
        return {}


class SquashedGaussian(Distribution):
    """Continuous actions tanh(u), u ~ Normal(μ, σ²), independent components, scaled to their bounds.

    The parameters are μ and log σ side by side, [B, 2A] (Haarnoja et al. 2018, arXiv:1801.01290, appendix C).

    Args:
        bounds: where actions lie when they are flown.
        shape: of one action, when it is flown.
    """

    space = Box

    def __init__(self, bounds: ActionBounds, shape: tuple[int, ...]) -> None:
        self.bounds, self.shape = bounds, shape
        self.labels = [f"component {i}" for i in range(len(bounds.low))]

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> SquashedGaussian:  # noqa: ARG003
        """That of a policy, which has no weights for it.

        Raises:
            UserError: an action has a component that lacks a bound.
        """
        assert isinstance(spec.action, Box)
        bounds = ActionBounds(spec.action.low, spec.action.high, True)
        if not bounds.all_scaled:
            raise UserError("squashed actions lie between bounds, and a component of these lacks one")
        return cls(bounds, spec.action.shape)

    @classmethod
    def size(cls, spec: PolicySpec) -> int:
        """2A: μ and log σ of each component."""
        return 2 * spec.action.inputs

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard normal noise."""
        return rng.standard_normal((*shape, len(self.labels)), dtype=np.float32)

    def _means_and_log_stds(self, parameters: Array) -> tuple[Array, Array]:
        means, log_stds = np.split(parameters, 2, axis=-1)
        return means, np.clip(log_stds, *LOG_STD_RANGE)

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B, A] float32 from -1 to 1; tanh μ where there is no noise."""
        means, log_stds = self._means_and_log_stds(parameters)
        return np.asarray(np.tanh(means if noise is None else means + np.exp(log_stds) * noise))

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over components of log N(u; μ, σ²) − log(1 − a²), a = tanh u kept off ±1."""
        means, log_stds = self._means_and_log_stds(parameters)
        inside = np.clip(actions, -1 + 1e-6, 1 - 1e-6)
        z = (np.arctanh(inside) - means) / np.exp(log_stds)
        densities = -0.5 * z * z - log_stds - _LOG_SQRT_2PI - np.log1p(-np.square(inside))
        return np.asarray(densities.sum(axis=-1, dtype=np.float32))

    def notes(self, parameters: Array, actions: Array) -> dict[str, Array]:  # noqa: ARG002
        """Nothing: what learns by value asks for no probabilities."""
        return {}

    def flyable(self, actions: Array) -> Array:
        """[B, *shape] float32, within the bounds."""
        return self.bounds.actions(actions).reshape(len(actions), *self.shape)

    def as_sampled(self, actions: Array) -> Array:
        """[B, A] float32, what is scaled between -1 and 1."""
        return self.bounds.numbers(actions.reshape(len(actions), -1))

    def shown(self, parameters: Array) -> dict[str, Array]:
        """What tanh μ stands for, [B, A] in the actions' units."""
        return {"mean": self.bounds.place(np.tanh(np.split(parameters, 2, axis=-1)[0]))}
