"""Environments of every kind of space, which raise at an action that is not of theirs."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from actors.episode import Array

Step = tuple[Array, float, bool, bool, dict[str, Any]]


class Spaces(gymnasium.Env[Any, Any]):
    """Any spaces; never flown."""

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


class Choosing(gymnasium.Env[Any, Any]):
    """Shows a value at random; the share of numbers that are as it says in the action earns that much.

    Args:
        space: of observations and of actions, which of a Dict are its part ``here``.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.observation_space = self.action_space = space
        if isinstance(space, Dict):
            self.action_space = space["here"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._shown = self.observation_space.sample()
        return self._shown, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        asked = self._shown["here"] if isinstance(self._shown, dict) else self._shown
        return self._shown, float(np.mean(action == asked)), True, False, {}


class Orders(Choosing):
    """One step an episode, which pays 1 where an action of several parts is what was shown, part by part."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = (
            Dict(
                lift=Discrete(3, start=-1),
                arms=Tuple([Box(3, 5, (1, 2)), MultiBinary(2)]),
                gears=MultiDiscrete([2, 3], start=[1, 0]),
            )
            for _ in range(2)
        )

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        (box, bits), (asked_box, asked_bits) = action["arms"], self._shown["arms"]
        near = 1 - np.abs(box - asked_box).mean() / 2
        same = [action["lift"] == self._shown["lift"], bits == asked_bits, action["gears"] == self._shown["gears"]]
        return self._shown, float(np.mean([near, *map(np.mean, same)])), True, False, {}


class Forbidding(gymnasium.Env[Any, Any]):
    """Allows some actions, others at each step, and raises at any other; those of the highest numbers earn 1.

    Args:
        space: of actions.
        size: of their mask.
    """

    def __init__(self, space: gymnasium.Space[Any], size: int) -> None:
        self.action_space = space
        self.observation_space = Dict(seen=Box(-1, 1, (2,)), action_mask=Box(0, 1, (size,), np.int8))

    def _observation(self, is_last: bool) -> dict[str, Any]:
        mask = self.np_random.random(self.observation_space["action_mask"].shape[0]) < 0.5
        for part in np.split(mask, np.cumsum(self._sizes)[:-1]):
            part[self.np_random.integers(len(part))] = True
        self._mask = mask & (not is_last)
        return {"seen": np.zeros(2, np.float32), "action_mask": self._mask.astype(np.int8)}

    @property
    def _sizes(self) -> Any:
        """How many numbers of the mask each choice has, of which one at least is allowed."""
        parts = self.action_space.values() if isinstance(self.action_space, Dict) else [self.action_space]
        choices = [part for part in parts if not isinstance(part, Box)]
        return [size for part in choices for size in (part.nvec if isinstance(part, MultiDiscrete) else [part.n])]

    def _flags(self, action: Any, space: Any = None) -> Array:
        """Which numbers of the mask an action stands for."""
        space = space or self.action_space
        if isinstance(space, Box):
            return np.zeros(0, bool)
        if isinstance(space, Dict):
            return np.concatenate([self._flags(action[name], part) for name, part in space.items()])
        if isinstance(space, MultiBinary):
            return np.asarray(action) > 0
        if isinstance(space, Discrete):
            return np.arange(space.n) == action - space.start
        each = zip(space.nvec, action, strict=True)
        return np.concatenate([np.arange(n) == taken for n, taken in each])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observation(is_last=False), {}

    def step(self, action: Any) -> Any:
        flags = self._flags(action)
        if (flags & ~self._mask).any():
            raise RuntimeError(f"{action} is not allowed by {self._mask}")
        self._step += 1
        best = np.array(self._mask)
        if not isinstance(self.action_space, MultiBinary):
            for part in np.split(best, np.cumsum(self._sizes)[:-1]):
                part[: np.flatnonzero(part)[-1]] = False
        reward = float((flags == best).all())
        return self._observation(is_last=self._step == 3), reward, self._step == 3, False, {}


class Exact(gymnasium.Env[Any, Any]):
    """Raises at an action that is not of its space, to the last digit and in its own type."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Step:
        if not self.action_space.contains(np.asarray(action)):
            raise RuntimeError(f"{action!r} is not of {self.action_space}")
        return np.zeros(1, np.float32), 0.0, True, False, {}


gymnasium.register("Orders-v0", entry_point=f"{__name__}:Orders", disable_env_checker=True)
for name, space in {
    "Cells": Discrete(5, start=-2),
    "Choices": MultiDiscrete([[3], [2]], start=[[1], [0]]),
    "Switches": MultiBinary(3),
    "Parts": Dict(here=Discrete(3), there=Tuple([MultiBinary(2), Box(-1, 1, (1,))])),
}.items():
    kwargs = {"space": space}
    gymnasium.register(f"{name}-v0", entry_point=f"{__name__}:Choosing", kwargs=kwargs, disable_env_checker=True)
for name, space in {
    "Double": Box(-0.1, 0.3, (2,), np.float64),
    "Half": Box(-0.1, 0.3, (2,), np.float16),
    "Short": MultiDiscrete(np.array([2, 3]), dtype=np.int32),
    "Scalar": Box(-0.25, 0.25, (), np.float32),
}.items():
    of = {"space": space}
    gymnasium.register(f"{name}-v0", entry_point=f"{__name__}:Exact", kwargs=of, disable_env_checker=True)
for name, space, size in (
    ("OneOf", Discrete(4, start=1), 4),
    ("SomeOf", MultiBinary(3), 3),
    ("EachOf", MultiDiscrete([2, 3]), 5),
    ("PartsOf", Dict(one=Discrete(2, start=1), more=MultiDiscrete([2, 3])), 7),
    ("SteeredOf", Dict(one=Discrete(2, start=1), steer=Box(-1, 1, (2,)), more=MultiDiscrete([2, 3])), 7),
    ("Unfit", Discrete(4), 5),
):
    of = {"space": space, "size": size}
    gymnasium.register(f"{name}-v0", entry_point=f"{__name__}:Forbidding", kwargs=of, disable_env_checker=True)
