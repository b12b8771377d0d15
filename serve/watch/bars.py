"""What the page shows of a choice, a bar for each of the numbers that the policy's distribution has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actors.parts import leaf_spaces, num_continuous
from actors.spaces import Box, Space
from actors.trees import Tree, leaves
from serve.watch.lander import Point


def bounds_of(space: Space) -> list[Point | None]:
    """The bounds of each component of actions, None of what is discrete; none: all is."""
    found: list[Point | None] = []
    for _, leaf in leaf_spaces(space):
        found += zip(leaf.low, leaf.high, strict=True) if isinstance(leaf, Box) else [None] * leaf.inputs
    return found if num_continuous(space) else []


def shown_of(space: Space, shown: Mapping[str, Tree]) -> dict[str, list[float | None]]:
    """What a distribution shows of one choice, by kind, in five digits; None for parts that show other kinds."""
    columns = {kind: dict(leaves(tree)) for kind, tree in shown.items()}
    found: dict[str, list[float | None]] = {kind: [] for kind in shown}
    for name, leaf in leaf_spaces(space):
        for kind, of_parts in columns.items():
            numbers = of_parts[name][0].tolist() if name in of_parts else [None] * leaf.inputs
            found[kind] += [None if x is None else float(f"{x:.5g}") for x in numbers]
    return found


def numbers_of(action: Any) -> Iterator[Any]:
    """The numbers or arrays that an action is made of, as an environment takes it."""
    if isinstance(action, dict | tuple):
        for part in action.values() if isinstance(action, dict) else action:
            yield from numbers_of(part)
    else:
        yield action
