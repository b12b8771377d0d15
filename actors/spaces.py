"""Spaces: what observations and actions are made of, as plain data that travels in a policy's file."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from actors.errors import UserError, unknown
from actors.trees import Array

_MOST_DIMENSIONS = 32
_MOST = 2**31
_TOLD = 8
"""Ranges of whole numbers that are told; of more, how many."""


class Space(ABC):
    """Values of one kind. A batch's column of them is an array, or for spaces of several parts a tree of arrays."""

    kind: str
    shape: tuple[int, ...]
    """The shape of one value; () where it has parts."""
    dtype: str
    """The type of values in a batch's columns; where it has parts float64 if one of them is of that, else float32."""

    @property
    @abstractmethod
    def inputs(self) -> int:
        """How many numbers a network sees of a value."""

    @abstractmethod
    def encode(self, values: Any) -> Array:
        """What a network sees: [B, *shape] -> [B, inputs]; float64 where values are, else float32."""

    def numbers(self, values: Any) -> Array:
        """What a network without convolutions sees of it, [B, inputs]."""
        return self.encode(values)

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

    has_frames = False
    """Whether values hold frames of steps before, of which a batch keeps each once: see ``pictures``."""

    def newest(self, values: Any) -> Any:
        """What a batch keeps of a column, as a copy: all of it, but for frames of steps before."""
        return self.copied(values)

    def earlier(self, values: Any) -> Any:  # noqa: ARG002
        """What of a column is of steps before, as a copy: nothing, but for frames."""
        return {}

    def restored(self, newest: Any, final: Any, earlier: Any, lengths: Array) -> tuple[Any, Any]:  # noqa: ARG002
        """Whole columns of a batch's steps and of what comes after its segments.

        Args:
            newest: [T, …] of steps, as ``newest`` gave them.
            final: [E, …], of what comes after segments, likewise.
            earlier: [E, …] of the first step of each segment, as ``earlier`` gave them.
            lengths: [E]: steps of each segment.
        """
        return newest, final

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
        check_sizes(self.shape)
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
        """As many numbers as a value has."""
        return math.prod(self.shape)

    def encode(self, values: Array) -> Array:
        """Values as they are, the numbers of each in a row: [B, inputs]."""
        return values.reshape(len(values), -1)

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Standard normal values."""
        return rng.standard_normal((count, *self.shape), np.float32).astype(self.dtype, copy=False)

    @property
    def form(self) -> Box:
        """A Box of the same shape, without bounds and in single precision."""
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
        check_sizes((self.n,))
        if not -_MOST < self.start < _MOST:
            raise UserError(f"start must be a 32-bit number, not {self.start}")

    @property
    def inputs(self) -> int:
        """As many numbers as there are values: they are one-hot."""
        return self.n

    def encode(self, values: Array) -> Array:
        """Values one-hot: [B, n]."""
        return _one_hot(values[:, None] - self.start, (self.n,))

    def project(self, values: Any, weights: Array) -> Array:
        """The row of the weights that belongs to each value: [B, units]."""
        return np.asarray(weights[values - self.start])

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform values."""
        return rng.integers(self.start, self.start + self.n, count)

    def outside(self, values: Array) -> Array:
        """Which values are below ``start``, or n or more beyond it."""
        return (values < self.start) | (values >= self.start + self.n)

    def in_words(self) -> str:
        """The range of a value, for a person."""
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
        check_sizes(self.shape)
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
        """As many numbers as there are choices, of all numbers of a value together."""
        return sum(self.nvec)

    def encode(self, values: Array) -> Array:
        """Each number of a value one-hot, one after another: [B, sum of nvec]."""
        return _one_hot(values.reshape(len(values), -1) - self.first, self.nvec)

    def project(self, values: Any, weights: Array) -> Array:
        """The sum of the rows of the weights that belong to the numbers of each value: [B, units]."""
        starts = np.cumsum([0, *self.nvec[:-1]]) - self.first
        return np.asarray(weights[values.reshape(len(values), -1) + starts].sum(axis=1))

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform values."""
        return rng.integers(self.first, self.first + np.array(self.nvec), (count, len(self.nvec))).reshape(
            count, *self.shape
        )

    def outside(self, values: Array) -> Array:
        """Which numbers are out of their own range."""
        places = values.reshape(len(values), -1) - self.first
        outside: Array = (places < 0) | (places >= np.array(self.nvec))
        return outside.reshape(values.shape)

    def in_words(self) -> str:
        """The range of each number of a value, for a person."""
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
        check_sizes(self.shape)

    @property
    def inputs(self) -> int:
        """As many numbers as a value has."""
        return math.prod(self.shape)

    def encode(self, values: Array) -> Array:
        """Values as they are, in single precision: [B, inputs]."""
        return values.reshape(len(values), -1).astype(np.float32)

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform values."""
        return rng.integers(0, 2, (count, *self.shape), np.int8)

    def outside(self, values: Array) -> Array:
        """Which numbers are neither 0 nor 1."""
        return np.asarray((values != 0) & (values != 1))

    def in_words(self) -> str:
        """How many zeros and ones a value has, for a person."""
        return _several(self.shape, "zeros and ones", "zero or one")


def _one_hot(places: Array, sizes: tuple[int, ...]) -> Array:
    """[B, K] whole numbers, each below its size -> [B, sum of sizes] float32."""
    rows = np.zeros((len(places), sum(sizes)), np.float32)
    starts = np.cumsum([0, *sizes[:-1]])
    np.put_along_axis(rows, places + starts, 1, axis=1)
    return rows


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of one value; None: it is ragged."""
    try:
        shape: tuple[int, ...] = np.shape(value)
    except ValueError:
        return None
    return shape


def _several(shape: tuple[int, ...], noun: str, one: str = "") -> str:
    if math.prod(shape) == 1:
        return f"{' × '.join(map(str, shape)) or 'one'} {one or noun}"
    return f"{' × '.join(map(str, shape))} {noun}{'' if one else 's'}"


def check_sizes(sizes: tuple[int, ...]) -> None:
    """Make sure that a space can be of these sizes.

    Raises:
        UserError: it cannot.
    """
    if not all(0 < size < _MOST for size in sizes):
        raise UserError(f"sizes must be positive, and below 2**31: {sizes}")
    if len(sizes) > _MOST_DIMENSIONS:
        raise UserError(f"{len(sizes)} dimensions are more than {_MOST_DIMENSIONS}")
