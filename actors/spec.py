"""PolicySpec: what a policy flies, how its network is shaped and where it is from; and its reading from JSON."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from typing import Any, Literal, Protocol

from actors.core import MOST_KEPT
from actors.cores import CORES
from actors.distributions import DISTRIBUTIONS
from actors.environment_name import parse
from actors.errors import UserError, unknown
from actors.files import INFINITIES
from actors.gpt2 import GPT2
from actors.layers import ACTIVATIONS
from actors.masks import MASK, chooses, has_mask
from actors.parts import MOST_DEPTH, Parts, leaf_spaces, num_choices, num_continuous
from actors.pictures import Picture, pictures_in
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.trees import Array
from actors.trunks import features_of, read_trunk, trunk_shapes

MOST_BYTES = 256 * 1024**2
"""In a policy's file: a thousand times what one of the usual sizes needs."""
MOST_REMEMBERED = 4096
"""Units of a memory, which travels with every request: 44 KB of text, or twice that."""

SPACES: dict[str, type[Space]] = {
    "parts": Parts,
    "box": Box,
    "discrete": Discrete,
    "multi_discrete": MultiDiscrete,
    "multi_binary": MultiBinary,
    "picture": Picture,
}
"""The kinds of spaces, by the name that files have for them."""

_MOST_TRAINED = 64 * 1024
"""Bytes of JSON that a policy says at most of how it was trained."""


@dataclasses.dataclass(frozen=True)
class PolicyNetwork:
    """A multilayer perceptron.

    Raises:
        UserError: a size or a name that no network can have.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: str = "tanh"
    """tanh, relu or elu."""
    normalize_observations: bool = False
    """Observations are standardised with running statistics that travel in the weights."""
    layer_norm: bool = False
    """Each hidden layer is normalised before its activation: over its units, to mean 0 and standard deviation 1, then
    scaled and shifted (Ba et al. 2016, arXiv:1607.06450)."""
    trunk: str = ""
    """The convolutions that each picture in an observation goes through first: see ``trunks``; empty: none."""
    memory: Literal["none", "gru", "lstm", "transformer", "gpt2"] = "none"
    """The core between the hidden layers and the output layer: see ``actors.cores``. gpt2 is of policies that were
    imported from transformers, and stands in the place of hidden layers."""
    memory_size: int = 64
    """Its units."""
    memory_layers: int = 2
    """A transformer's blocks, or GPT-2's."""
    memory_heads: int = 4
    """The heads of each block."""
    memory_window: int = 30
    """Steps that each block attends to."""
    gpt2: GPT2 | None = None
    """What else shapes a memory gpt2; None: it is another."""

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if not all(0 < size < 2**31 for size in self.hidden_sizes):
            raise UserError(f"sizes must be positive: hidden_sizes is {self.hidden_sizes}")
        read_trunk(self.trunk)
        require_memory(self, self.hidden_sizes)
        if (self.memory == "gpt2") != (self.gpt2 is not None):
            raise UserError("memory gpt2 comes with the shape of its network, gpt2, and no other does: one is missing")


class Remembers(Protocol):
    """The options of a memory."""

    @property
    def memory(self) -> str: ...
    @property
    def memory_size(self) -> int: ...
    @property
    def memory_layers(self) -> int: ...
    @property
    def memory_heads(self) -> int: ...
    @property
    def memory_window(self) -> int: ...


def require_memory(options: Remembers, hidden_sizes: tuple[int, ...]) -> None:
    """Make sure that a network can have such a memory.

    Raises:
        UserError: it cannot.
    """
    if options.memory not in ("none", *CORES):
        raise unknown("memory", options.memory, ("none", *CORES))
    most = {"memory_size": MOST_REMEMBERED, "memory_layers": 64, "memory_heads": 64, "memory_window": MOST_REMEMBERED}
    for name, limit in most.items():
        if not 0 < getattr(options, name) <= limit:
            raise UserError(f"{name} must lie between 1 and {limit}, not {getattr(options, name)}")
    if options.memory == "none":
        return
    is_alone = CORES[options.memory].reads_observations
    if is_alone and hidden_sizes:
        raise UserError(f"memory {options.memory} stands in the place of hidden layers: hidden_sizes must be empty")
    if not (is_alone or hidden_sizes):
        raise UserError(f"memory {options.memory} stands after the hidden layers: hidden_sizes must have one")
    if options.memory in ("transformer", "gpt2") and options.memory_size % options.memory_heads:
        raise UserError(f"memory_size {options.memory_size} must be a multiple of memory_heads {options.memory_heads}")
    if options.memory == "transformer":
        kept = 2 * options.memory_layers * options.memory_window * options.memory_size
        if kept > MOST_KEPT:
            raise UserError(
                f"memory_layers × memory_window × memory_size are {kept // 2:,}, more than {MOST_KEPT // 2:,}: "
                "keys and values of an episode travel with every request"
            )


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """What a policy flies, how its network is shaped and where it is from: the contents of policy.json.

    Raises:
        UserError: a value that no policy can have, or values that contradict one another.
    """

    env_id: str
    """The Gymnasium id of the environment it was made for."""
    observation: Space
    """What it sees."""
    action: Space
    """What it does."""
    distribution: str
    """The family of distributions over its actions: a name in DISTRIBUTIONS."""
    scale_actions: bool = False
    """Continuous actions: components with both bounds are scaled from the network's [-1, 1] to them; False, and where a
    file does not say: just clipped, as Stable-Baselines3 does."""
    network: PolicyNetwork = PolicyNetwork()
    version: int = 0
    """How many updates made it."""
    trained: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How it was trained: preset, seed, steps, library version."""
    target_return: float | None = None
    """The return that it acts for where nobody asks for another; None: it acts for none in particular."""
    sampled: bool = False
    """It samples its actions where nobody says how it acts: it was made to be flown so."""

    def __post_init__(self) -> None:
        try:
            parse(self.env_id)
        except UserError as error:
            raise UserError(f"env_id: {error}"[:500]) from error
        if self.distribution not in DISTRIBUTIONS:
            raise unknown("distribution", self.distribution, DISTRIBUTIONS)
        kind = DISTRIBUTIONS[self.distribution]
        if not isinstance(self.action, kind.space):
            raise UserError(f"a {self.distribution} distribution is not over actions of kind {self.action.kind}")
        for _, leaf in leaf_spaces(self.action):
            if isinstance(leaf, Picture):
                raise UserError("actions are no pictures")
            if isinstance(leaf, Box) and not leaf.low:
                raise UserError("continuous actions must have bounds, infinite ones maybe: low and high are missing")
        if not 0 <= self.version < 2**63:
            raise UserError("version must be zero or more, and below 2**63")
        if self.is_masked:
            numbers = math.prod(self.observation.spaces[MASK].shape)  # type: ignore[attr-defined]
            if numbers != num_choices(self.action):
                raise UserError(f"{MASK} has {numbers} numbers, one for each of {num_choices(self.action)} is needed")
        pictures = [*pictures_in(self.seen)]
        if self.network.trunk and not pictures:
            raise UserError(f"convolutions are for pictures, and observations are {self.seen.in_words()}: network mlp")
        if pictures and self.network.normalize_observations:
            raise UserError("observations with pictures are not standardised: normalize_observations must be false")
        if self.seen.dtype == "float64" and not self.network.normalize_observations:
            raise UserError("observations of float64 are of policies that normalise them, and this one does not")
        core = CORES.get(self.network.memory)
        if (self.target_return is None) == (core is not None and core.acts_for_return):
            raise UserError("a transformer acts for a target_return, and no other network: one of them is missing")
        if self.target_return is not None and not math.isfinite(self.target_return):
            raise UserError(f"target_return must be a number, not {self.target_return}")
        if core:
            core.require_fit(self)
        size = 4 * sum(math.prod(shape) for shape in self.weight_shapes().values())
        if size > MOST_BYTES:
            raise UserError(
                f"its network of {' × '.join(map(str, self.layer_sizes))} units would take {size / 1024**2:,.0f} MiB, "
                f"more than {MOST_BYTES // 1024**2}"
            )
        try:
            size = len(json.dumps(self.trained, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"trained must hold plain JSON: {error}") from error
        if size > _MOST_TRAINED:
            raise UserError(f"trained has {size:,} bytes of JSON, more than {_MOST_TRAINED:,}")

    @property
    def is_masked(self) -> bool:
        """Whether its observations say which actions are allowed: see ``actors.masks``."""
        return has_mask(self.observation) and num_choices(self.action) > 0

    @functools.cached_property
    def chooses(self) -> Array | None:
        """[A] bool: which of the distribution's parameters a mask is of; None: all."""
        return chooses(self.action)

    @property
    def is_sampled(self) -> bool:
        """Whether it samples its actions where nobody says how it acts: if it says so, or acts for a return, since
        taking the most likely actions it would soon repeat itself. Continuous ones it does not: their means are no
        repetition, and the noise of whom it learned from was theirs."""
        return self.sampled or (self.target_return is not None and not num_continuous(self.action))

    @functools.cached_property
    def seen(self) -> Space:
        """What its network sees of observations: all but the mask."""
        return self.observation.without(MASK) if self.is_masked else self.observation  # type: ignore[attr-defined]

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Units from input to output: (numbers seen or features of a trunk, *hidden, the distribution's parameters)."""
        outputs = DISTRIBUTIONS[self.distribution].size(self)
        return (features_of(self.seen, self.network.trunk), *self.network.hidden_sizes, outputs)

    @property
    def features(self) -> int:
        """Numbers that the output layer reads: of the memory, or units of the last hidden layer."""
        return CORES[self.network.memory].features(self) if self.network.memory != "none" else self.layer_sizes[-2]

    @property
    def statistics_dtype(self) -> Literal["float32", "float64"]:
        """The type of observations, as the network sees them, and of their statistics until they are standardised."""
        return "float64" if self.seen.dtype == "float64" else "float32"

    def require_spaces(self, env_id: str, observation: Space, action: Space) -> None:
        """Make sure that it can fly an environment of that name and these spaces.

        Raises:
            UserError: it sees or does something else.
        """
        for name, mine, theirs in (("observation", self.observation, observation), ("action", self.action, action)):
            if mine.form != theirs.form:
                raise UserError(f"its {name} is {mine.in_words()}, {env_id} has {theirs.in_words()}")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight: a layer is ``x @ w{i} + b{i}``; those of trunks come first."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.network.trunk:
            for name, picture in pictures_in(self.seen):
                shapes |= trunk_shapes(name, picture.planes, self.network.trunk)
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(self.layer_sizes)):
            fan_in = self.features if i == len(self.network.hidden_sizes) else fan_in  # noqa: PLW2901
            shapes |= {f"w{i}": (fan_in, fan_out), f"b{i}": (fan_out,)}
            if self.network.layer_norm and i < len(self.network.hidden_sizes):
                shapes |= {f"scale{i}": (fan_out,), f"shift{i}": (fan_out,)}
        if self.network.memory != "none":
            shapes |= CORES[self.network.memory].weight_shapes(self)
        shapes |= DISTRIBUTIONS[self.distribution].weight_shapes(self)
        if self.network.normalize_observations:
            shapes |= {"observation_mean": (self.layer_sizes[0],), "observation_std": (self.layer_sizes[0],)}
        return shapes

    @property
    def num_learned(self) -> int:
        """Numbers among its weights that are learned by gradients: no statistics of observations, no ε."""
        others = {"observation_mean", "observation_std", *DISTRIBUTIONS[self.distribution].unlearned}
        if self.network.memory != "none":
            others |= CORES[self.network.memory].unlearned
        return sum(math.prod(shape) for name, shape in self.weight_shapes().items() if name not in others)


def read_spec(data: Any) -> PolicySpec:
    """A spec from plain JSON, each field of its own type to the letter: no 8.0 for 8, no true for 1.

    Raises:
        ValueError: a field is unknown, missing, of another type or impossible.
    """
    if isinstance(data, dict):
        data = _as_of_today(data)
        if isinstance(data.get("network"), dict):
            network = data["network"]
            if isinstance(network.get("gpt2"), dict):
                network = {**network, "gpt2": _read(network["gpt2"], GPT2)}
            data["network"] = _read(network, PolicyNetwork)
    spec: PolicySpec = _read(data, PolicySpec)
    return spec


def read_space(data: Any) -> Space:
    """A space from plain JSON, as a spec has it.

    Raises:
        ValueError: a field is unknown, missing, of another type or impossible.
    """
    space: Space = _read(data, Space)
    return space


def _read(data: Any, kind: type[Any]) -> Any:
    """An object of JSON as a dataclass; a field that is a space has any of its kinds."""
    import msgspec  # here: actors, which read no files, start without it

    depth = 0

    def convert(data: Any, kind: type[Any]) -> Any:
        if isinstance(data, dict) and kind is not Space:
            for name in data.keys() - {field.name for field in dataclasses.fields(kind)}:
                raise UserError(
                    f"{name[:200]!r} is no field of a policy's spec; it may be of a newer version of Touchdown"
                )
        return msgspec.convert(data, kind, dec_hook=decode)

    def decode(kind: type[Any], data: Any) -> Any:
        if kind is not Space or not isinstance(data, dict):
            raise ValueError("a space must be an object with its kind")
        if data.get("kind") not in SPACES:
            raise unknown("kind of space", str(data.get("kind"))[:200], SPACES)
        for name in ("low", "high"):
            if isinstance(data.get(name), list):
                data[name] = [INFINITIES.get(x, x) if isinstance(x, str) else x for x in data[name]]
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise UserError(f"spaces are nested more than {MOST_DEPTH} deep")
        space = convert(data, SPACES[data["kind"]])
        depth -= 1
        return space

    return convert(data, kind)


_MOVED = {"hidden_sizes", "activation", "normalize_observations"}
_NEW = {"observation", "action", "distribution", "network"}


def _as_of_today(data: dict[str, Any]) -> dict[str, Any]:
    """A spec as it was written before spaces had kinds, as one is written now; others as they are."""
    if "observation_shape" not in data:
        return data
    if mixed := sorted(_NEW & data.keys()):
        raise UserError(f"observation_shape is of older files, {mixed[0]} of newer ones: a spec has one of them")
    data = {"action_low": [], "action_high": [], "action_shape": [], **data}
    dtype = data.pop("observation_dtype", "float32")
    data["observation"] = {"kind": "box", "shape": data.pop("observation_shape"), "dtype": dtype}
    data["distribution"], size = data.pop("actions", None), data.pop("action_size", None)
    low, high, shape = (data.pop(f"action_{name}") for name in ("low", "high", "shape"))
    if data["distribution"] == "categorical":
        if low or high or shape:
            raise UserError(
                "action_low, action_high and action_shape are of continuous actions, and these are discrete"
            )
        data["action"] = {"kind": "discrete", "n": size}
    else:
        data["action"] = {"kind": "box", "shape": shape, "low": low, "high": high}
        if isinstance(low, list) and size != len(low):
            raise UserError(f"action_low has {len(low)} numbers, for an action_size of {size}")
    data["network"] = {name: data.pop(name) for name in _MOVED & data.keys()}
    return data
