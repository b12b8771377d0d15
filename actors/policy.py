"""Policy: all that is needed to act, and nothing else. No critic, no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from actors.cores import CORE, CORES
from actors.distribution import Distribution
from actors.distributions import DISTRIBUTIONS
from actors.episode import Array
from actors.errors import NonFiniteError, UserError
from actors.files import json_text, read_json, replacing
from actors.layers import ACTIVATIONS, normalized
from actors.masks import MASK, allowed, masked
from actors.spec import MOST_BYTES, PolicySpec, read_spec
from actors.trees import Tree, length

NORMALIZED_LIMIT = 10.0
"""Normalised observations are clipped to ± this many standard deviations, as is customary."""
_MOST_HEADER = 1024**2
Memory = dict[str, Array]
"""What a policy remembers of the episodes that it flies, by name, a row for each: {name: [slots, …]}."""


@dataclasses.dataclass(slots=True)
class Step:
    """What a policy does for B observations."""

    distribution: Distribution
    parameters: Array
    """[B, A]: what the network makes of the observations: the distribution's parameters; [B, P] where they are more."""
    sampled: Array
    """[B] or [B, A]: actions as the distribution gave them, which is what a learner learns from."""
    actions: Any
    """[B, *act], or of several parts a tree of these: as the environment takes them, within its bounds."""
    memory: Memory
    """The policy's memory for the next step of the same episodes."""

    @property
    def shown(self) -> Mapping[str, Tree]:
        """What a person may see of the choice, by name, [B, …]: see ``Distribution.shown``."""
        return self.distribution.shown(self.parameters)


class Policy:
    """A spec and its weights: acts on batches of observations in numpy, saves and loads without pickle.

    Raises:
        UserError: a weight is missing, unexpected, misshapen or impossible.
        NonFiniteError: a weight holds a NaN or an infinity, or stands for one.
    """

    def __init__(self, spec: PolicySpec, weights: dict[str, Array]) -> None:
        expected = spec.weight_shapes()
        found = {name: array.shape for name, array in weights.items()}
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                has, needs = (shapes.get(name, "missing") for shapes in (found, expected))
                needs = "unknown" if needs == "missing" else f"{needs} is needed"
                raise UserError(f"weights do not fit the policy: {name[:200]} is {has}, {needs}")
        for name, array in weights.items():
            dtype = spec.statistics_dtype if name in ("observation_mean", "observation_std") else "float32"
            if array.dtype != dtype:
                raise UserError(f"policy weight {name} is {array.dtype}, not {dtype}")
            if not np.isfinite(array).all():
                raise NonFiniteError(f"policy weight {name} holds a NaN or an infinity")
        for name in ("observation_std", "core_return_std"):
            if name in weights and not (weights[name] > 0).all():
                raise UserError(f"policy weight {name} must be positive")
        self.spec = spec
        self.weights = weights
        self._between = [self._activated(i) for i in range(len(spec.network.hidden_sizes))]
        self._layers = [(weights[f"w{i}"], weights[f"b{i}"]) for i in range(len(spec.network.hidden_sizes) + 1)]
        kind = CORES.get(spec.network.memory)
        self._core = kind(spec, weights) if kind else None
        self._limit = np.inf if kind and kind.reads_observations else NORMALIZED_LIMIT
        sees_hidden = DISTRIBUTIONS[spec.distribution].sees_hidden
        # a memory and some distributions have to see what comes before it
        self._last = self._layers.pop() if sees_hidden or self._core else None
        self._encode = spec.seen.encode
        self._project: Callable[[Tree, Array], Array] = spec.seen.project
        if spec.network.trunk:
            from actors.trunk_graph import Encoder  # here: others act without ONNX

            encode = Encoder(spec.seen, spec.network.trunk, weights)
            self._project = lambda observations, w: encode(observations) @ w
        self._normalizes = spec.network.normalize_observations
        self._is_masked = spec.is_masked
        self.distribution = DISTRIBUTIONS[spec.distribution].of(spec, weights)

    def __reduce__(self) -> tuple[type[Policy], tuple[PolicySpec, dict[str, Array]]]:
        return Policy, (self.spec, self.weights)

    def forward(self, observations: Tree) -> Array:
        """The distribution's parameters: observations [B, *obs] -> logits or means [B, A] float32.

        Of a distribution that sees the last hidden layer they are what it says, [B, P]. Of a policy that remembers they
        are those of an episode's first step.

        Args:
            observations: a column of ``spec.observation``.
        """
        return self._forward(observations, self.start(length(observations)) if self._core else {})[0]

    def _forward(self, observations: Tree, memory: Memory) -> tuple[Array, Memory]:
        """The distribution's parameters, and the memory for the next step."""
        if self._normalizes:
            x = self._encode(observations)
            x = (x - self.weights["observation_mean"]) / self.weights["observation_std"]
            x = np.clip(x, -self._limit, self._limit).astype(np.float32, copy=False)
        if self._layers:
            (w, b), *layers = self._layers
            x = (x @ w if self._normalizes else self._project(observations, w)) + b
            for between, (w, b) in zip(self._between, layers, strict=False):
                x = between(x) @ w + b
        if self._last:
            hidden, (w, b) = self._between[-1](x) if self._between else x, self._last
            if self._core:
                remembered = self._core.step(hidden, memory[CORE])
                memory, hidden = {CORE: remembered}, remembered[:, : self._core.units]
            x = self.distribution.complete(hidden @ w + b, hidden)
        parameters = np.asarray(x)
        return (masked(parameters, allowed(observations, self.spec)) if self._is_masked else parameters), memory

    def _activated(self, layer: int) -> Callable[[Array], Array]:
        """What becomes of a hidden layer's sums, [B, units]: normalised where the network does so, and activated."""
        activation = ACTIVATIONS[self.spec.network.activation]
        if not self.spec.network.layer_norm:
            return activation
        scale, shift = self.weights[f"scale{layer}"], self.weights[f"shift{layer}"]
        return lambda x: activation(normalized(x, scale, shift))

    def require_actions(self, observations: Tree) -> None:
        """Make sure that each of the observations allows an action.

        Raises:
            UserError: the mask of one forbids all.
        """
        if self._is_masked and not self.distribution.can_act(allowed(observations, self.spec)).all():
            raise UserError(f"{self.spec.env_id}: {MASK} forbids every action")

    def start(self, slots: int, target_returns: Array | None = None) -> Memory:
        """Its memory before the first step of ``slots`` episodes; a feed-forward network has none.

        Args:
            slots: how many.
            target_returns: [slots] that they are flown for, of a policy that acts for some; None: its own.
        """
        return {CORE: self._core.start(slots, target_returns)} if self._core else {}

    def step(self, observations: Tree, memory: Memory, noise: Array | None = None) -> Step:
        """Act on a batch of observations. Whoever flies an environment with a policy calls this.

        Args:
            observations: [B, *obs]: a column of ``spec.observation``.
            memory: of ``start``, or of the step before in the same B episodes; it may be written over.
            noise: [B, A] of the distribution; a row of zeros, or None for all of them, takes the most likely action.
        """
        parameters, memory = self._forward(observations, memory)
        sampled = self.distribution.sample(parameters, noise)
        actions = self.distribution.flyable(sampled)
        return Step(self.distribution, parameters, sampled, actions, self.acted(memory, actions))

    def acted(self, memory: Memory, actions: Any) -> Memory:
        """The memory of a step, in which somebody else chose the actions, as the environment takes them."""
        return {CORE: self._core.acted(memory[CORE], actions)} if self._core else memory

    def rewarded(self, memory: Memory, rewards: Array) -> Memory:
        """The memory of a step once the environments have answered it with rewards, [B]; for the next step."""
        return {CORE: self._core.rewarded(memory[CORE], rewards)} if self._core else memory

    @property
    def stores_memory(self) -> bool:
        """Whether experience carries its memory, for who learns from it."""
        return self._core is None or self._core.is_stored

    def asked_for(self, target_return: float) -> Policy:
        """The same policy, acting for another return.

        Raises:
            UserError: it acts for none in particular, or this is no number.
        """
        if self.spec.target_return is None:
            raise UserError(f"this policy for {self.spec.env_id} acts for no return in particular: ask it for none")
        return Policy(dataclasses.replace(self.spec, target_return=float(target_return)), self.weights)

    def notes(self, parameters: Array, sampled: Array) -> dict[str, Array]:
        """What a learner has to know later of how it chose, by name: see ``Distribution.notes``."""
        return self.distribution.notes(parameters, sampled)

    def act(self, observations: Tree, rng: np.random.Generator | None = None) -> Any:
        """Actions for the first step of a batch of episodes, or for any step where the policy has no memory.

        Args:
            observations: [B, *obs]: a column of ``spec.observation``.
            rng: the source of randomness; None takes the most likely actions.

        Returns:
            [B, *act], as the environment takes them; of several parts a tree of these. ``environments.fitting`` makes
            one by one of them what an environment steps with.
        """
        count = length(observations)
        noise = None if rng is None else self.distribution.noise(rng, (count,))
        return self.step(observations, self.start(count), noise).actions

    def files(self) -> dict[str, bytes]:
        """What a policy's directory holds: policy.safetensors, whose header carries the spec too, and policy.json.

        A reader that comes between the two files sees one policy, not a mixture: ``load`` reads the header.
        """
        spec = dataclasses.asdict(self.spec)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        return {
            "policy.safetensors": safetensors.numpy.save(arrays, metadata={"spec": json_text(spec, indent=None)}),
            "policy.json": f"{json_text(spec)}\n".encode(),
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
        with path.open("rb") as file:
            return Policy.parse(file.read(MOST_BYTES + 1), str(path))

    @staticmethod
    def parse(data: bytes, origin: str) -> Policy:
        """A policy from the contents of its policy.safetensors.

        Raises:
            UserError: they are damaged, or more than a policy has; names ``origin``.
        """
        header = int.from_bytes(data[:8], "little")
        if len(data) > MOST_BYTES or len(data) > header > _MOST_HEADER:
            raise UserError(
                f"{origin} is no policy: it has more than {MOST_BYTES // 1024**2} MiB, or a header of more than one"
            )
        try:
            weights = safetensors.numpy.load(data)
            spec = read_json(data[8 : 8 + header], "its header")["__metadata__"]["spec"]
            return Policy(read_spec(read_json(spec, "its spec")), weights)
        except (safetensors.SafetensorError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise UserError(f"{origin} is damaged: {said}") from error


def policy_directory(path: str | Path) -> Path:
    """Where a run keeps its policy; a directory that holds just a policy is its own.

    Raises:
        UserError: this is a URI.
    """
    if re.match(r"[a-z][a-z0-9]+:/", str(path)):
        raise UserError(f"{path} is no directory that this machine can see: copy the run from its store, or mount it")
    return Path(path) / "policy" if (Path(path) / "policy").is_dir() else Path(path)
