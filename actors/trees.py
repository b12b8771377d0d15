"""Nested dictionaries of arrays: a batch's columns, observations of several parts, a policy's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tree = Array | Mapping[str, "Tree"]
"""An array, or trees by name."""


def map_leaves(function: Callable[..., Array], *trees: Any) -> Any:
    """The tree of what a function makes of each leaf, or of the leaves in the same place of several trees.

    Raises:
        ValueError: the trees have other names.
    """
    first = trees[0]
    if not isinstance(first, dict):
        return function(*trees)
    for tree in trees[1:]:
        if not isinstance(tree, dict) or tree.keys() != first.keys():
            names = ", ".join(tree) if isinstance(tree, dict) else "an array"
            raise ValueError(f"trees differ: {', '.join(first) or 'no names'} in one, {names or 'no names'} in another")
    return {name: map_leaves(function, *(tree[name] for tree in trees)) for name in first}


def concatenate(trees: Sequence[Any]) -> Any:
    """One tree of several with the same names, their leaves laid end to end."""
    return map_leaves(lambda *leaves: np.concatenate(leaves), *trees)


def length(tree: Any) -> int:
    """How many rows its leaves have."""
    while isinstance(tree, dict):
        tree = next(iter(tree.values()))
    return len(tree)


def rows(tree: Any, index: Any) -> Any:
    """Some of the rows of each leaf."""
    if isinstance(tree, dict):
        return {name: rows(part, index) for name, part in tree.items()}
    return tree[index]


def put(tree: Any, index: Any, values: Any) -> None:
    """Overwrite some of the rows of each leaf with those of another tree."""
    if isinstance(tree, dict):
        for name, part in tree.items():
            put(part, index, values[name])
    else:
        tree[index] = values


def grown(leaves: Mapping[str, Array]) -> Any:
    """The tree of leaves by their places, as ``leaves`` tells these."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *above, last = name.split(".")
        inner = tree
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = leaf
    return tree


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Array]]:
    """Each leaf, and its place in the tree with a dot between names; ``name`` is the tree's own."""
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, part in tree.items():
        yield from leaves(part, f"{name}.{key}" if name else key)
