"""Policy: all that is needed to act, and nothing else. No critic, no torch."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy

from actors.distributions import Categorical, Distribution, Gaussian
from actors.episode import Array
from actors.errors import NonFiniteError, UserError, unknown
from actors.files import replacing

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}
NORMALIZED_LIMIT = 10.0
"""Normalised observations are clipped to ± this many standard deviations, as is customary."""


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """What a policy flies and how its network is shaped: the contents of policy.json.

    Raises:
        UserError: a size or a name that no policy can have.
    """

    env_id: str
    """The Gymnasium id of the environment it was made for."""
    observation_shape: tuple[int, ...]
    """Shape of one observation; the network sees it flattened."""
    actions: Literal["categorical", "gaussian"]
    """The family of action distributions: Discrete or Box action spaces."""
    action_size: int
    """Number of discrete actions, or of components of a continuous one."""
    action_low: tuple[float, ...] = ()
    """Continuous actions are clipped to these bounds when flown (±inf: unbounded)."""
    action_high: tuple[float, ...] = ()
    action_shape: tuple[int, ...] = ()
    """Shape of one continuous action; () for a discrete one."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: str = "tanh"
    """tanh, relu or elu."""
    normalize_observations: bool = False
    """Observations are standardised with running statistics that travel in the weights."""
    version: int = 0
    """How many updates made it."""
    trained: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How it was trained: preset, seed, steps, library version."""

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.actions not in ("categorical", "gaussian"):
            raise unknown("action distribution", self.actions, ("categorical", "gaussian"))
        if self.action_size < 1 or any(size < 1 for size in (*self.hidden_sizes, *self.observation_shape)):
            raise UserError(f"sizes must be positive: {self}")
        if self.actions == "gaussian":
            bounds = np.array([self.action_low, self.action_high], np.float64)
            if bounds.shape != (2, self.action_size) or np.isnan(bounds).any():
                raise UserError(f"action_low and action_high must be {self.action_size} numbers each: {self}")
            if int(np.prod(self.action_shape)) != self.action_size:
                raise UserError(f"action_shape {self.action_shape} does not have {self.action_size} components")

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Units from input to output: (observation, *hidden, action)."""
        return (int(np.prod(self.observation_shape)), *self.hidden_sizes, self.action_size)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight: a layer is ``x @ w{i} + b{i}``."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(self.layer_sizes)):
            shapes |= {f"w{i}": (fan_in, fan_out), f"b{i}": (fan_out,)}
        if self.actions == "gaussian":
            shapes["log_std"] = (self.action_size,)
        if self.normalize_observations:
            shapes |= {"observation_mean": (self.layer_sizes[0],), "observation_std": (self.layer_sizes[0],)}
        return shapes


class Policy:
    """A spec and its weights: acts on batches of observations in numpy, saves and loads without pickle.

    Raises:
        UserError: a weight is missing, unexpected or misshapen.
        NonFiniteError: a weight holds a NaN or an infinity.
    """

    def __init__(self, spec: PolicySpec, weights: dict[str, Array]) -> None:
        expected = spec.weight_shapes()
        found = {name: array.shape for name, array in weights.items()}
        if found != expected:
            raise UserError(f"weights do not fit the policy: expected {expected}, found {found}")
        for name, array in weights.items():
            if array.dtype != np.float32:
                raise UserError(f"policy weight {name} is {array.dtype}, not float32")
            if not np.isfinite(array).all():
                raise NonFiniteError(f"policy weight {name} holds a NaN or an infinity")
        self.spec = spec
        self.weights = weights
        self._activation = ACTIVATIONS[spec.activation]
        self._layers = [(weights[f"w{i}"], weights[f"b{i}"]) for i in range(len(spec.hidden_sizes) + 1)]
        self.distribution: Distribution = (
            Gaussian(weights["log_std"]) if spec.actions == "gaussian" else Categorical(spec.action_size)
        )

    def __reduce__(self) -> tuple[type[Policy], tuple[PolicySpec, dict[str, Array]]]:
        return Policy, (self.spec, self.weights)

    def forward(self, observations: Array) -> Array:
        """The distribution's parameters: observations [B, *obs] float32 -> logits or means [B, A] float32."""
        x = observations.reshape(len(observations), -1)
        if self.spec.normalize_observations:
            x = (x - self.weights["observation_mean"]) / self.weights["observation_std"]
            x = np.clip(x, -NORMALIZED_LIMIT, NORMALIZED_LIMIT)
        for w, b in self._layers[:-1]:
            x = self._activation(x @ w + b)
        w, b = self._layers[-1]
        return np.asarray(x @ w + b)

    def act(self, observations: Array, rng: np.random.Generator | None = None) -> Array:
        """Actions for a batch: the most likely ones, or sampled when ``rng`` is given.

        Args:
            observations: [B, *obs] float32.
            rng: the source of randomness; None acts greedily.

        Returns:
            [B] int64, or [B, *act] float32 within the action space's bounds.
        """
        parameters = self.forward(observations)
        if rng is None:
            return self.flyable(self.distribution.mode(parameters))
        noise = self.distribution.noise(rng, (len(observations),))
        return self.flyable(self.distribution.sample(parameters, noise))

    def flyable(self, actions: Array) -> Array:
        """Actions as the environment takes them: continuous ones clipped to their bounds and in their shape."""
        if self.spec.actions == "categorical":
            return actions
        low, high = (np.asarray(bound, np.float32) for bound in (self.spec.action_low, self.spec.action_high))
        clipped = np.clip(actions, low, high)
        return clipped.reshape(len(actions), *self.spec.action_shape)

    def files(self) -> dict[str, bytes]:
        """What a policy's directory holds: policy.safetensors, whose header carries the spec too, and policy.json.

        A reader that comes between the two files sees one policy, not a mixture: ``load`` reads the header.
        """
        spec = dataclasses.asdict(self.spec)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        return {
            "policy.safetensors": safetensors.numpy.save(arrays, metadata={"spec": json.dumps(spec)}),
            "policy.json": (json.dumps(spec, indent=2) + "\n").encode(),
        }

    def save(self, directory: str | Path) -> None:
        """Write its files, each atomically."""
        for name, data in self.files().items():
            with replacing(Path(directory) / name) as temporary:
                temporary.write_bytes(data)

    @staticmethod
    def load(directory: str | Path) -> Policy:
        """Read a policy from its directory.

        Raises:
            UserError: there is no policy there, or it is damaged.
        """
        path = Path(directory) / "policy.safetensors"
        if not path.is_file():
            raise UserError(f"no policy in {directory}: {path.name} is missing")
        return Policy.parse(path.read_bytes(), str(path))

    @staticmethod
    def parse(data: bytes, origin: str) -> Policy:
        """A policy from the contents of its policy.safetensors.

        Raises:
            UserError: they are damaged; names ``origin``.
        """
        try:
            weights = safetensors.numpy.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            spec = json.loads(header["__metadata__"]["spec"])
            for name in ("observation_shape", "action_low", "action_high", "action_shape", "hidden_sizes"):
                spec[name] = tuple(spec[name])
            return Policy(PolicySpec(**spec), weights)
        except (safetensors.SafetensorError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{origin} is damaged: {error}") from error
        except (ArithmeticError, RecursionError) as error:
            raise UserError(f"{origin} is damaged: {error}") from error


def policy_directory(path: str | Path) -> Path:
    """Where a run keeps its policy; a directory that holds just a policy is its own.

    Raises:
        UserError: this is a URI.
    """
    if re.match(r"[a-z][a-z0-9]+:/", str(path)):
        raise UserError(f"{path} is no directory that this machine can see: copy the run from its store, or mount it")
    return Path(path) / "policy" if (Path(path) / "policy").is_dir() else Path(path)
