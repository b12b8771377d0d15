"""Parts: the space of values of several named parts, each of a space of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from actors.errors import UserError
from actors.spaces import Box, Space
from actors.trees import Array

MOST_DEPTH = 16
"""How many spaces may be nested in one another."""
_NOT_IN_NAMES = '."\\'
"""Paths to parts are written with dots, in JSON and ONNX."""


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
        if _depth(self) > MOST_DEPTH:
            raise UserError(f"spaces are nested more than {MOST_DEPTH} deep")
        for name in self.spaces:
            if not name or not name.isprintable() or set(name) & set(_NOT_IN_NAMES):
                raise UserError(
                    f"parts must have printable names without {' '.join(_NOT_IN_NAMES)}, not {name[:100]!r}"
                )
        if self.is_tuple and list(self.spaces) != [str(i) for i in range(len(self.spaces))]:
            raise UserError("parts of a tuple must be called 0, 1, …")

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same parts in the same order, which decides which weight sees what."""
        return isinstance(other, Parts) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    @property
    def _items(self) -> tuple[Any, ...]:
        return (*self.spaces.items(), self.is_tuple)

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """The type of what a network sees: float64 if a part is of that, else float32."""
        return "float64" if "float64" in [space.dtype for space in self.spaces.values()] else "float32"

    @property
    def inputs(self) -> int:
        """As many numbers as a network sees of all parts together."""
        return sum(space.inputs for space in self.spaces.values())

    def encode(self, values: Any) -> Array:
        """What a network sees of all parts, in a row: [B, inputs]."""
        return np.concatenate([space.numbers(values[name]) for name, space in self.spaces.items()], axis=1)

    def project(self, values: Any, weights: Array) -> Array:
        """The sum of what each part makes of its own rows of the weights: [B, units]."""
        rows = np.split(weights, np.cumsum([space.inputs for space in self.spaces.values()])[:-1])
        parts = zip(self.spaces.items(), rows, strict=True)
        return np.asarray(sum(space.project(values[name], mine) for (name, space), mine in parts))

    def stack(self, values: Sequence[Any], part: str = "observation") -> Any:
        """A tree of columns, one for each part, of values as an environment gives them."""
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
        """A copy of each part's column, in the part's types."""
        return {name: space.copied(values[name]) for name, space in self.spaces.items()}

    @property
    def has_frames(self) -> bool:  # type: ignore[override]
        """Whether a part holds frames of steps before."""
        return any(space.has_frames for space in self.spaces.values())

    def newest(self, values: Any) -> Any:
        """A copy of each part's column, without frames of steps before."""
        return {name: space.newest(values[name]) for name, space in self.spaces.items()}

    def earlier(self, values: Any) -> Any:
        """A copy of the frames of steps before, of the parts that have some."""
        return {name: space.earlier(values[name]) for name, space in self.spaces.items() if space.has_frames}

    def restored(self, newest: Any, final: Any, earlier: Any, lengths: Array) -> tuple[Any, Any]:
        """Whole columns of each part."""
        whole = {
            name: space.restored(newest[name], final[name], earlier.get(name, {}), lengths)
            for name, space in self.spaces.items()
        }
        return {name: steps for name, (steps, _) in whole.items()}, {name: after for name, (_, after) in whole.items()}

    def without(self, name: str) -> Parts:
        """The space of all parts but one."""
        return Parts({other: space for other, space in self.spaces.items() if other != name})

    def sample(self, rng: np.random.Generator, count: int) -> Any:
        """A column of values to try something out with, for each part."""
        return {name: space.sample(rng, count) for name, space in self.spaces.items()}

    @property
    def form(self) -> Parts:
        """The space of the parts' forms: without bounds, and how exactly numbers are held."""
        return Parts({name: space.form for name, space in self.spaces.items()}, self.is_tuple)

    def outside(self, values: Any) -> Any:
        """Which numbers of each part's column are none of its space's."""
        return {name: space.outside(values[name]) for name, space in self.spaces.items()}

    def in_words(self) -> str:
        """What each part of a value is, for a person."""
        parts = "; ".join(f"{name}: {space.in_words()}" for name, space in self.spaces.items())
        return f"{'a list' if self.is_tuple else 'an object'} of ({parts})"


def _depth(space: Space) -> int:
    return 1 + max(map(_depth, space.spaces.values())) if isinstance(space, Parts) else 1


def leaf_spaces(space: Space, name: str = "") -> Iterator[tuple[str, Space]]:
    """The spaces of leaves and their places in a value's tree, as ``trees.leaves`` tells these; ``name`` is its own."""
    if isinstance(space, Parts):
        for key, part in space.spaces.items():
            yield from leaf_spaces(part, f"{name}.{key}" if name else key)
    else:
        yield name, space


def num_continuous(space: Space) -> int:
    """How many continuous components an action has, in all its parts."""
    return sum(leaf.inputs for _, leaf in leaf_spaces(space) if isinstance(leaf, Box))


def num_choices(space: Space) -> int:
    """How many numbers say which of an action's choices and switches are allowed, in all its parts."""
    return sum(leaf.inputs for _, leaf in leaf_spaces(space) if not isinstance(leaf, Box))
