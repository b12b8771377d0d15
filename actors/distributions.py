"""Action distributions in numpy: what an actor needs to act, and to say how likely its action was.

Both sample by a deterministic function of (parameters, noise), so that a rollout draws the noise of many steps in
one call, and computes log-probabilities for all its steps at once when it ends.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from actors.episode import Array

_LOG_SQRT_2PI = float(0.5 * np.log(2 * np.pi))


class Distribution(Protocol):
    """A family of distributions over actions; ``parameters`` are the policy network's outputs, [B, A]."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Noise for ``shape`` samples: [*shape, A] float32."""

    def sample(self, parameters: Array, noise: Array) -> Array:
        """One action a row: a ~ π(· | o)."""

    def mode(self, parameters: Array) -> Array:
        """The most likely action of each row."""

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """log π(a | o): [B] float32."""


class Categorical:
    """Discrete actions; the parameters are logits, [B, A]."""

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard Gumbel noise: arg max(logits + noise) is then a sample (Gumbel, 1954)."""
        return -np.log(np.maximum(rng.standard_exponential((*shape, self.num_actions), dtype=np.float32), 1e-30))

    def sample(self, parameters: Array, noise: Array) -> Array:
        """[B] int64."""
        return np.asarray((parameters + noise).argmax(axis=-1))

    def mode(self, parameters: Array) -> Array:
        """[B] int64."""
        return np.asarray(parameters.argmax(axis=-1))

    def probabilities(self, parameters: Array) -> Array:
        """[B, A] float32, rows that sum to 1."""
        return np.exp(self._log_softmax(parameters))

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32."""
        return np.take_along_axis(self._log_softmax(parameters), actions[..., None], axis=-1)[..., 0]

    @staticmethod
    def _log_softmax(logits: Array) -> Array:
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


class Gaussian:
    """Continuous actions, independent components; the parameters are means, [B, A], with one log σ for all states."""

    def __init__(self, log_std: Array) -> None:
        self.log_std = log_std
        with np.errstate(over="ignore"):  # a policy with an infinite one is refused by name
            self.std = np.exp(log_std)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard normal noise."""
        return rng.standard_normal((*shape, len(self.log_std)), dtype=np.float32)

    def sample(self, parameters: Array, noise: Array) -> Array:
        """[B, A] float32, unbounded."""
        return np.asarray(parameters + self.std * noise)

    def mode(self, parameters: Array) -> Array:
        """[B, A] float32: the means."""
        return parameters

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over components of log N(a; μ, σ²)."""
        z = (actions - parameters) / self.std
        return np.asarray((-0.5 * z * z - self.log_std - _LOG_SQRT_2PI).sum(axis=-1, dtype=np.float32))
