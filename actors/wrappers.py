"""Wrappers of ours, which an environment's name gives by their bare names, as Gymnasium's: ``Taxi-v3 | ActionMask``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from actors.episode import Array
from actors.errors import UserError
from actors.gymnasium_spaces import action_space_of
from actors.masks import MASK
from actors.parts import num_choices

_MOST_ROWS = 10_000_000


class ActionMask(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Puts what says which actions are allowed into the observations, where policies heed it: see ``actors.masks``.

    Args:
        env: with actions that are not all continuous.
        method: of the environment, which answers the mask, as sb3-contrib's ``action_masks``; None: it is
            ``info["action_mask"]``, as Taxi's.

    Raises:
        UserError: the actions cannot be masked, or the observations have a part of that name.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], method: str | None = None) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, method=method)
        gymnasium.Wrapper.__init__(self, env)
        actions = action_space_of(env.action_space)
        self._method, self._size = method, num_choices(actions) if actions else 0
        if not self._size:
            raise UserError(f"actions {env.action_space} cannot be masked")
        self._is_dict = isinstance(env.observation_space, gymnasium.spaces.Dict)
        parts = self._parts(env.observation_space)
        if MASK in parts:
            raise UserError(f"its observations have an {MASK} already")
        mask = gymnasium.spaces.MultiBinary(self._size)
        self.observation_space = gymnasium.spaces.Dict({**parts, MASK: mask})

    def _parts(self, whole: Any) -> dict[str, Any]:
        return dict(whole) if self._is_dict else {"observation": whole}

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's, the observation with its mask."""
        observation, info = self.env.reset(**options)
        return self._with_mask(observation, info, False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, the observation with its mask; after the last step of an episode it may have none."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info, terminated or truncated), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any], is_over: bool) -> dict[str, Any]:
        mask = self.env.get_wrapper_attr(self._method)() if self._method else info.get(MASK)
        if mask is None and is_over:
            mask = np.ones(self._size, np.int8)
        if mask is None:
            raise UserError(f"info has no {MASK}; give the name of a method that answers it, ActionMask(method='…')")
        mask = np.asarray(mask).reshape(-1)
        if len(mask) != self._size:
            raise UserError(f"the mask has {len(mask)} entries; its actions are {self._size}")
        return {**self._parts(observation), MASK: mask.astype(np.int8)}


class Hide(gymnasium.ObservationWrapper[Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Leaves numbers out of observations: ``CartPole-v1 | Hide(components=[1, 3])`` shows no velocities.

    EnvPool flies it too. Of a Dict's parts Gymnasium's FilterObservation leaves some out.

    Args:
        env: with Box observations of one dimension.
        components: those to leave out, from 0.

    Raises:
        UserError: observations are others, have no such components, or nothing would be left.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], components: Sequence[int]) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, components=components)
        gymnasium.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
            raise UserError(f"observations {space} are no Box of one dimension")
        size = space.shape[0]
        is_list = isinstance(components, list | tuple)
        if not (is_list and all(type(component) is int and 0 <= component < size for component in components)):
            raise UserError(f"components must be a list of whole numbers from 0 to {size - 1}, not {components}")
        self._left = left(size, components)
        if not len(self._left):
            raise UserError(f"nothing would be left of {size} components")
        self.observation_space = gymnasium.spaces.Box(space.low[self._left], space.high[self._left], dtype=space.dtype)  # type: ignore[arg-type]

    def observation(self, observation: Any) -> Any:
        """What is left of it."""
        return observation[self._left]


def left(size: int, components: Sequence[int]) -> Any:
    """Which of an observation's numbers are left when some are hidden: [n] int."""
    return np.delete(np.arange(size), components)


class Tabular(gymnasium.ObservationWrapper[Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Numbers observations of whole numbers, so that a table can have a row for each: ``Blackjack-v1 | Tabular``.

    Args:
        env: with Discrete, MultiDiscrete or MultiBinary observations, or Tuples and Dicts of such.

    Raises:
        UserError: observations are others, or more than a table can have rows.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        ranges = _ranges(env.observation_space)
        if ranges is None:
            raise UserError(f"observations {env.observation_space} are not of whole numbers alone")
        self._first, self._sizes = [first for first, _ in ranges], [size for _, size in ranges]
        rows = math.prod(self._sizes)
        if rows > _MOST_ROWS:
            raise UserError(f"there are {rows:,} observations, more than the {_MOST_ROWS:,} rows of a table")
        self.observation_space = gymnasium.spaces.Discrete(rows)

    def observation(self, observation: Any) -> np.int64:
        """The number of an observation, the last of its own numbers counting fastest."""
        numbers = np.concatenate([*_numbers(self.env.observation_space, observation)]) - self._first
        return np.int64(np.ravel_multi_index([int(number) for number in numbers], self._sizes))


class Screen(gymnasium.ObservationWrapper[Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Pictures made gray and small, [height, width] uint8: each pixel is the mean of the area that it covers.

    ``VizdoomBasic-v1(frame_skip=4) | Screen(height=30, width=45) | FrameStackObservation(stack_size=4)``

    Args:
        env: whose observations are pictures [H, W], [H, W, 1] or [H, W, 3] of uint8, or a Dict with such a ``screen``,
            as ViZDoom's, of which nothing else is left.
        height: in pixels.
        width: in pixels.

    Raises:
        UserError: observations are no pictures, or a size is not positive.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], height: int, width: int) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, height=height, width=width)
        gymnasium.ObservationWrapper.__init__(self, env)
        space: Any = env.observation_space
        self._is_part = isinstance(space, gymnasium.spaces.Dict) and "screen" in space.spaces
        picture = space["screen"] if self._is_part else space
        shape: tuple[int, ...] = picture.shape or ()
        if picture.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
            raise UserError(f"observations {space} are no pictures")
        for name, size in (("height", height), ("width", width)):
            if not (isinstance(size, int) and size > 0):
                raise UserError(f"{name} must be a positive whole number, not {size!r}")
        self._shape, self._is_coloured = shape[:2], shape[2:] == (3,)
        self._rows, of_rows = _overlaps(shape[0], height)
        columns, of_columns = _overlaps(shape[1], width)
        self._columns, self._scale = np.ascontiguousarray(columns.T), np.float32(1 / (of_rows * of_columns))
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width), np.uint8)

    def observation(self, observation: Any) -> Array:
        """The picture in an observation, [height, width] uint8."""
        picture = (observation["screen"] if self._is_part else observation).astype(np.float32)
        gray = np.rint(picture @ _LUMA) if self._is_coloured else picture.reshape(self._shape)
        means = self._rows @ gray @ self._columns * self._scale
        return np.asarray(means + np.float32(0.5), np.uint8)


_LUMA = np.array([77, 150, 29], np.float32) / 256
"""How bright red, green and blue are (ITU-R BT.601), in 256ths: their sums are exact, in whatever order."""


def _overlaps(pixels: int, areas: int) -> tuple[Array, int]:
    """How much of each pixel lies in each of as many equal areas, [areas, pixels] float32, and how much makes an area.

    In a unit in which all are whole numbers: what is summed of them and of pixels is exact, in whatever order.
    """
    common = math.gcd(pixels, areas)
    pixel, area = areas // common, pixels // common
    starts, ends = np.arange(pixels) * pixel, np.arange(1, areas + 1)[:, None] * area
    return np.clip(np.minimum(ends, starts + pixel) - np.maximum(ends - area, starts), 0, None).astype(np.float32), area


def _ranges(space: gymnasium.Space[Any]) -> list[tuple[int, int]] | None:
    """The first and the number of values of each whole number in it; None: it has others."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return [(int(space.start), int(space.n))]
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return [*zip(space.start.ravel().tolist(), space.nvec.ravel().tolist(), strict=True)]
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return [(0, 2)] * math.prod(space.shape)
    if isinstance(space, gymnasium.spaces.Tuple | gymnasium.spaces.Dict):
        parts = [_ranges(part) for part in (space.values() if isinstance(space, gymnasium.spaces.Dict) else space)]
        return None if None in parts else [pair for part in parts for pair in part or ()]
    return None


def _numbers(space: gymnasium.Space[Any], observation: Any) -> Iterator[Any]:
    """An observation's whole numbers, [n] each, in the order of its space."""
    if isinstance(space, gymnasium.spaces.Dict):
        for name, part in space.items():
            yield from _numbers(part, observation[name])
    elif isinstance(space, gymnasium.spaces.Tuple):
        for part, value in zip(space, observation, strict=True):
            yield from _numbers(part, value)
    else:
        yield np.ravel(observation)
