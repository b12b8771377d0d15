"""Spaces: what observations and actions are made of, as plain data that travels in a policy's file."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np

from actors.errors import UserError, unknown
from actors.trees import Array

_MOST_DIMENSIONS = 32
_MOST = 2**31
_TOLD = 8
"""Ranges of whole numbers that are told; of more, how many."""
_NOT_IN_NAMES = '."\\'
"""Paths to parts are written with dots, in JSON and ONNX."""


class Space(ABC):
    """Values of one kind. A batch's column of them is an array, or for spaces of several parts a tree of arrays."""

    kind: str
    shape: tuple[int, ...]
    """Of one value; () where it has parts."""
    dtype: str
    """Of values in a batch's columns; float64 for a space that has a part of that, else float32, where it has parts."""

    @property
    @abstractmethod
    def inputs(self) -> int:
        """How many numbers a network sees of a value."""

    @abstractmethod
    def encode(self, values: Any) -> Array:
        """What a network sees: [B, *shape] -> [B, inputs]; float64 where values are, else float32."""

    def project(self, values: Any, weights: Array) -> Array:
        """``encode(values) @ weights``, [B, units], of float32: a network's first layer."""
        return np.asarray(self.encode(values) @ weights)

    def stack(self, values: Sequence[Any], part: str = "observation") -> Any:
        """A column of values as an environment gives them: [B, *shape].

        Args:
            values: B of them.
            part: what to call one in an error.

        Raises:
            UserError: one is no value of this space; says which part and why.
        """
        try:
            stacked = np.asarray(values)
        except ValueError:  # not of one shape
            shape = next(shape for shape in map(_shape, values) if shape != self.shape)
        else:
            shape = stacked.shape[1:]
        if shape != self.shape:
            raise UserError(f"an {part} of shape {shape}; its observation_space has {self.shape}")
        if not np.can_cast(stacked.dtype, self.dtype, "same_kind"):
            raise UserError(f"an {part} of {stacked.dtype}; its observation_space is of {self.dtype}")
        outside = self.outside(stacked)
        if outside.any():
            raise UserError(f"an {part} of {stacked[outside][0]}; its observation_space is {self.in_words()}")
        return stacked.astype(self.dtype, copy=False)

    def copied(self, values: Any) -> Any:
        """A copy of a column, in this space's types."""
        return values.astype(self.dtype)

    @abstractmethod
    def sample(self, rng: np.random.Generator, count: int) -> Any:
        """A column of values to try something out with: [count, *shape]."""

    @property
    def form(self) -> Space:
        """The space without what may differ between two of the same use: bounds, and how exactly numbers are held."""
        return self

    def outside(self, values: Any) -> Any:
        """Which numbers of values [B, *shape] are none of this space's: bool, as values."""
        return np.zeros(values.shape, bool)

    def in_words(self) -> str:
        """What one value is, for a person who got it wrong."""
        return _several(self.shape, "number")


@dataclasses.dataclass(frozen=True)
class Box(Space):
    """Real numbers.

    Raises:
        UserError: sizes or bounds that no space has.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "float64"] = "float32"
    """What holds them; float64 keeps a small signal on a large offset until observations are standardised."""
    low: tuple[float, ...] = ()
    """Bounds of each number, in C order, ±inf where there is none; (): nobody asked."""
    high: tuple[float, ...] = ()
    kind: Literal["box"] = "box"

    def __post_init__(self) -> None:
        _check_sizes(self.shape)
        if self.dtype not in ("float32", "float64"):
            raise unknown("dtype", self.dtype, ("float32", "float64"))
        if self.low == self.high == ():
            return
        bounds = [np.array(ends, np.float64) for ends in (self.low, self.high)]
        if any(ends.shape != (self.inputs,) for ends in bounds):
            raise UserError(f"low and high must be {self.inputs} numbers each")
        low, high = bounds
        beyond = np.isfinite(bounds) & (np.abs(bounds) > np.finfo(np.float32).max)
        if beyond.any() or not ((low <= high) & (low < np.inf) & (high > -np.inf)).all():
            raise UserError("low must be at most high, and both numbers of 32-bit floats")

    @property
    def inputs(self) -> int:
        """All of them."""
        return math.prod(self.shape)

    def encode(self, values: Array) -> Array:
        """As they are, in a row."""
        return values.reshape(len(values), -1)

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Standard normal."""
        return rng.standard_normal((count, *self.shape), np.float32).astype(self.dtype, copy=False)

    @property
    def form(self) -> Box:
        """Its shape."""
        return Box(self.shape)


@dataclasses.dataclass(frozen=True)
class Discrete(Space):
    """One of n whole numbers, from ``start``."""

    n: int
    start: int = 0
    kind: Literal["discrete"] = "discrete"
    shape = ()
    dtype = "int64"

    def __post_init__(self) -> None:
        _check_sizes((self.n,))
        if not -_MOST < self.start < _MOST:
            raise UserError(f"start must be a 32-bit number, not {self.start}")

    @property
    def inputs(self) -> int:
        """One for each."""
        return self.n

    def encode(self, values: Array) -> Array:
        """One-hot."""
        return _one_hot(values[:, None] - self.start, (self.n,))

    def project(self, values: Any, weights: Array) -> Array:
        """Their rows of the weights."""
        return np.asarray(weights[values - self.start])

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform."""
        return rng.integers(self.start, self.start + self.n, count)

    def outside(self, values: Array) -> Array:
        """Those below ``start``, or n or more beyond it."""
        return (values < self.start) | (values >= self.start + self.n)

    def in_words(self) -> str:
        """The range."""
        return f"a whole number from {self.start} to {self.start + self.n - 1}"


@dataclasses.dataclass(frozen=True)
class MultiDiscrete(Space):
    """Several whole numbers, each below one of its own.

    Args:
        nvec: in C order.
        shape: of a value.
        start: in C order; (): all from 0.
    """

    nvec: tuple[int, ...]
    shape: tuple[int, ...]
    start: tuple[int, ...] = ()
    kind: Literal["multi_discrete"] = "multi_discrete"
    dtype = "int64"

    def __post_init__(self) -> None:
        _check_sizes(self.shape)
        if any(not 0 < n < _MOST for n in self.nvec):
            raise UserError(f"sizes must be positive, and below 2**31: nvec is {self.nvec}")
        if not math.prod(self.shape) == len(self.nvec) == len(self.start or self.nvec):
            raise UserError(f"nvec and start must have a number for each of shape {self.shape}")
        if any(not -_MOST < start < _MOST for start in self.start):
            raise UserError(f"start must be 32-bit numbers, not {self.start}")

    @property
    def first(self) -> Array:
        """[K] int64: the smallest of each."""
        return np.array(self.start or [0] * len(self.nvec))

    @property
    def inputs(self) -> int:
        """One for each choice of each number."""
        return sum(self.nvec)

    def encode(self, values: Array) -> Array:
        """One-hot, one after another."""
        return _one_hot(values.reshape(len(values), -1) - self.first, self.nvec)

    def project(self, values: Any, weights: Array) -> Array:
        """The sums of their rows of the weights."""
        starts = np.cumsum([0, *self.nvec[:-1]]) - self.first
        return np.asarray(weights[values.reshape(len(values), -1) + starts].sum(axis=1))

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform."""
        return rng.integers(self.first, self.first + np.array(self.nvec), (count, len(self.nvec))).reshape(
            count, *self.shape
        )

    def outside(self, values: Array) -> Array:
        """Those out of their own range."""
        places = values.reshape(len(values), -1) - self.first
        outside: Array = (places < 0) | (places >= np.array(self.nvec))
        return outside.reshape(values.shape)

    def in_words(self) -> str:
        """The ranges."""
        ranges = [f"{first} to {first + n - 1}" for first, n in zip(self.first, self.nvec, strict=True)]
        more = f" and {len(ranges) - _TOLD} more" if len(ranges) > _TOLD else ""
        return f"{_several(self.shape, 'whole number')}, from {', '.join(ranges[:_TOLD])}{more}"


@dataclasses.dataclass(frozen=True)
class MultiBinary(Space):
    """Zeros and ones."""

    shape: tuple[int, ...]
    kind: Literal["multi_binary"] = "multi_binary"
    dtype = "int8"

    def __post_init__(self) -> None:
        _check_sizes(self.shape)

    @property
    def inputs(self) -> int:
        """All of them."""
        return math.prod(self.shape)

    def encode(self, values: Array) -> Array:
        """As they are."""
        return values.reshape(len(values), -1).astype(np.float32)

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform."""
        return rng.integers(0, 2, (count, *self.shape), np.int8)

    def outside(self, values: Array) -> Array:
        """All others."""
        return np.asarray((values != 0) & (values != 1))

    def in_words(self) -> str:
        """How many."""
        return _several(self.shape, "zeros and ones", "zero or one")


@dataclasses.dataclass(frozen=True)
class Parts(Space):
    """Values of several named parts: a Dict of Gymnasium's, or a Tuple, whose parts are called 0, 1, …"""

    spaces: dict[str, Space]
    is_tuple: bool = False
    """Environments give tuples of the parts, in order."""
    kind: Literal["parts"] = "parts"
    shape = ()

    def __post_init__(self) -> None:
        if not self.spaces:
            raise UserError("a space of parts must have some")
        for name in self.spaces:
            if not name or not name.isprintable() or set(name) & set(_NOT_IN_NAMES):
                raise UserError(
                    f"parts must have printable names without {' '.join(_NOT_IN_NAMES)}, not {name[:100]!r}"
                )
        if self.is_tuple and list(self.spaces) != [str(i) for i in range(len(self.spaces))]:
            raise UserError("parts of a tuple must be called 0, 1, …")

    def __eq__(self, other: object) -> bool:
        """The order of parts decides which weight sees what."""
        return isinstance(other, Parts) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    @property
    def _items(self) -> tuple[Any, ...]:
        return (*self.spaces.items(), self.is_tuple)

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """Of what a network sees."""
        return "float64" if "float64" in [space.dtype for space in self.spaces.values()] else "float32"

    @property
    def inputs(self) -> int:
        """Those of all parts."""
        return sum(space.inputs for space in self.spaces.values())

    def encode(self, values: Any) -> Array:
        """All parts in a row."""
        return np.concatenate([space.encode(values[name]) for name, space in self.spaces.items()], axis=1)

    def project(self, values: Any, weights: Array) -> Array:
        """The sum of what each part makes of its rows of the weights."""
        rows = np.split(weights, np.cumsum([space.inputs for space in self.spaces.values()])[:-1])
        parts = zip(self.spaces.items(), rows, strict=True)
        return np.asarray(sum(space.project(values[name], mine) for (name, space), mine in parts))

    def stack(self, values: Sequence[Any], part: str = "observation") -> Any:
        """A tree of columns."""
        kind, names = (tuple, [*range(len(self.spaces))]) if self.is_tuple else (Mapping, [*self.spaces])
        for value in values:
            if not isinstance(value, kind):
                needed = "a tuple" if self.is_tuple else "a dictionary"
                raise UserError(f"an {part} that is a {type(value).__name__}; its observation_space needs {needed}")
            found = [*range(len(value))] if self.is_tuple else [*value]
            if set(found) != set(names):
                raise UserError(f"an {part} with the parts {found}; its observation_space has {names}")
        return {
            str(name): self.spaces[str(name)].stack([value[name] for value in values], f"{part}[{name!r}]")
            for name in names
        }

    def copied(self, values: Any) -> Any:
        """A copy of each column."""
        return {name: space.copied(values[name]) for name, space in self.spaces.items()}

    def without(self, name: str) -> Parts:
        """All parts but one."""
        return Parts({other: space for other, space in self.spaces.items() if other != name})

    def sample(self, rng: np.random.Generator, count: int) -> Any:
        """Of each part."""
        return {name: space.sample(rng, count) for name, space in self.spaces.items()}

    @property
    def form(self) -> Parts:
        """Those of the parts."""
        return Parts({name: space.form for name, space in self.spaces.items()}, self.is_tuple)

    def outside(self, values: Any) -> Any:
        """Those of each part."""
        return {name: space.outside(values[name]) for name, space in self.spaces.items()}

    def in_words(self) -> str:
        """Each part."""
        parts = "; ".join(f"{name}: {space.in_words()}" for name, space in self.spaces.items())
        return f"{'a list' if self.is_tuple else 'an object'} of ({parts})"


SPACES: dict[str, type[Space]] = {
    "parts": Parts,
    "box": Box,
    "discrete": Discrete,
    "multi_discrete": MultiDiscrete,
    "multi_binary": MultiBinary,
}
"""By kind."""


def space_of(space: gymnasium.Space[Any]) -> Space | None:
    """A space of Gymnasium's as one of ours, a Box without its bounds; None: there is none like it."""
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Box):
        exact = np.can_cast(np.dtype(space.dtype), np.float32)
        return Box(tuple(space.shape), "float32" if exact else "float64")
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        start = tuple(space.start.ravel().tolist())
        return MultiDiscrete(tuple(space.nvec.ravel().tolist()), tuple(space.shape), start if any(start) else ())
    if isinstance(space, spaces.MultiBinary):
        return MultiBinary(tuple(space.shape))
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = [*space.items()] if isinstance(space, spaces.Dict) else [*enumerate(space)]
        for name, _ in named:
            if isinstance(space, spaces.Dict) and not isinstance(name, str):
                raise UserError(f"parts must be named by text, not {name!r}")
        parts = {str(name): space_of(part) for name, part in named}
        if parts and None not in parts.values():
            return Parts(parts, isinstance(space, spaces.Tuple))  # type: ignore[arg-type]
    return None


def bounded(space: gymnasium.spaces.Box) -> Box:
    """Continuous actions, with bounds; those beyond a 32-bit float are none."""
    most = np.finfo(np.float32).max
    ends = (space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel())
    low, high = (np.where(np.abs(end) > most, np.copysign(np.inf, end), end).tolist() for end in ends)
    return Box(tuple(space.shape), low=tuple(low), high=tuple(high))


def _one_hot(places: Array, sizes: tuple[int, ...]) -> Array:
    """[B, K] whole numbers, each below its size -> [B, sum of sizes] float32."""
    rows = np.zeros((len(places), sum(sizes)), np.float32)
    starts = np.cumsum([0, *sizes[:-1]])
    np.put_along_axis(rows, places + starts, 1, axis=1)
    return rows


def _shape(value: Any) -> tuple[int, ...] | None:
    """Of one value; None: it is ragged."""
    try:
        shape: tuple[int, ...] = np.shape(value)
    except ValueError:
        return None
    return shape


def _several(shape: tuple[int, ...], noun: str, one: str = "") -> str:
    if math.prod(shape) == 1:
        return f"{' × '.join(map(str, shape)) or 'one'} {one or noun}"
    return f"{' × '.join(map(str, shape))} {noun}{'' if one else 's'}"


def _check_sizes(sizes: tuple[int, ...]) -> None:
    if not all(0 < size < _MOST for size in sizes):
        raise UserError(f"sizes must be positive, and below 2**31: {sizes}")
    if len(sizes) > _MOST_DIMENSIONS:
        raise UserError(f"{len(sizes)} dimensions are more than {_MOST_DIMENSIONS}")
