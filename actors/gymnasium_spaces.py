"""Gymnasium's spaces as ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from actors.errors import UserError
from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space


def space_of(space: gymnasium.Space[Any], frames: int = 1) -> Space | None:
    """A space of Gymnasium's as one of ours, a Box without its bounds; None: there is none like it.

    Args:
        space: Gymnasium's.
        frames: pictures of as many steps that it holds, where it holds pictures.
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) - (frames > 1) in (2, 3):
            return Picture(tuple(space.shape), frames)
        exact = np.can_cast(np.dtype(space.dtype), np.float32)
        return Box(tuple(space.shape), "float32" if exact else "float64")
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        start = tuple(space.start.ravel().tolist())
        return MultiDiscrete(tuple(space.nvec.ravel().tolist()), tuple(space.shape), start if any(start) else ())
    if isinstance(space, spaces.MultiBinary):
        return MultiBinary(tuple(space.shape))
    return _parts_of(space, functools.partial(space_of, frames=frames))


def action_space_of(space: gymnasium.Space[Any]) -> Space | None:
    """A space of actions as one of ours, a Box of floats with its bounds; None: there is none like it."""
    if isinstance(space, gymnasium.spaces.Box):
        return _bounded(space) if np.issubdtype(np.dtype(space.dtype), np.floating) else None
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        return _parts_of(space, action_space_of)
    return space_of(space)


def _parts_of(space: gymnasium.Space[Any], part_of: Callable[[Any], Space | None]) -> Parts | None:
    """A Dict or a Tuple, each part of which becomes one of ours; None: it is neither, or a part cannot."""
    spaces = gymnasium.spaces
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return None
    named = [*space.items()] if isinstance(space, spaces.Dict) else [*enumerate(space)]
    for name, _ in named:
        if isinstance(space, spaces.Dict) and not isinstance(name, str):
            raise UserError(f"parts must be named by text, not {name!r}")
    parts = {str(name): part_of(part) for name, part in named}
    if None in parts.values():
        return None
    return Parts(parts, isinstance(space, spaces.Tuple))  # type: ignore[arg-type]


def _bounded(space: gymnasium.spaces.Box) -> Box:
    """Continuous actions, with bounds; those beyond a 32-bit float are none."""
    most = np.finfo(np.float32).max
    ends = (space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel())
    low, high = (np.where(np.abs(end) > most, np.copysign(np.inf, end), end).tolist() for end in ends)
    return Box(tuple(space.shape), low=tuple(low), high=tuple(high))
