"""Gymnasium's spaces as ours."""

from __future__ import annotations

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
