"""Environments whose every number is known beforehand. Ray workers import this module by its name."""

import itertools
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from actors.episode import Array
from actors.vectors import GymnasiumEnvironments

Step = tuple[Array, float, bool, bool, dict[str, Any]]


class Steps(gymnasium.Env[Array, Any]):
    """Observations are (slot, episode, step); even episodes terminate, odd ones are truncated.

    Rewards are 1000 × episode + 10 × step + action, the step counted from 1.

    Args:
        slot: the first number of its observations.
        lengths: of its episodes; the last one repeats.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(2)

    def __init__(self, slot: int, lengths: Sequence[int]) -> None:
        self._slot, self._lengths = slot, lengths
        self._episode, self._step = -1, 0

    def _observation(self) -> Array:
        return np.array([self._slot, self._episode, self._step], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._episode, self._step = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        ended = self._step == self._lengths[min(self._episode, len(self._lengths) - 1)]
        reward = float(1000 * self._episode + 10 * self._step + action)
        return self._observation(), reward, ended and self._episode % 2 == 0, ended and self._episode % 2 == 1, {}


class Cue(gymnasium.Env[Array, Any]):
    """Shows 1 or −1 at first and zeros after; the last action is right, and earns 1, where it is 1 after a 1.

    Args:
        delay: steps between the cue and the action that counts.
    """

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, delay: int) -> None:
        self._delay = delay

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._cue, self._step = int(self.np_random.integers(2)), 0
        return np.array([2 * self._cue - 1, 0], np.float32), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        is_last = self._step > self._delay
        observation = np.array([0, self._step == self._delay], np.float32)
        return observation, float(is_last and action == self._cue), is_last, False, {}


class Tally(gymnasium.Env[Array, Any]):
    """Each of eight steps shows its number and earns its action, 0 or 1."""

    observation_space = Box(0, 8, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Step:
        self._steps += 1
        return np.array([self._steps], np.float32), float(action), self._steps == 8, False, {}


class Sides(gymnasium.Env[Array, Any]):
    """Each of 12 steps shows a side that the seed chose, -1 or 1, and earns 1 for that side's action, 0 or 1."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._right, self._steps = int(self.np_random.integers(2)), 0
        return self._seen(), {}

    def step(self, action: Any) -> Step:
        self._steps += 1
        return self._seen(), float(action == self._right), self._steps == 12, False, {}

    def _seen(self) -> Array:
        return np.array([2 * self._right - 1], np.float32)


gymnasium.register("Sides-v0", entry_point=Sides, disable_env_checker=True)
gymnasium.register("Tally-v0", entry_point=Tally, disable_env_checker=True)
gymnasium.register("Cue-v0", entry_point=Cue, kwargs={"delay": 8}, disable_env_checker=True)


def steps_environments(lengths: Iterable[Sequence[int]]) -> GymnasiumEnvironments:
    """One slot of Steps for each sequence of episode lengths."""
    slots = list(lengths)
    numbers = itertools.count()

    def make(**_: Any) -> Steps:
        slot = next(numbers)
        return Steps(slot, slots[slot])

    gymnasium.registry.pop("Steps-v0", None)
    gymnasium.register("Steps-v0", entry_point=make, disable_env_checker=True)
    return GymnasiumEnvironments("Steps-v0", len(slots), seed=0)


class Scripted(gymnasium.Env[Array, Any]):
    """Gives the observations and rewards of a script, each in its turn; the episode ends with the script."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, observations: Sequence[float], rewards: Sequence[float]) -> None:
        self._observations, self._rewards, self._step = observations, rewards, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._step = 0
        return np.array([self._observations[0]], np.float32), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        observation = np.array([self._observations[self._step]], np.float32)
        return observation, self._rewards[self._step - 1], self._step == len(self._rewards), False, {}


class Echo(gymnasium.Env[Array, Any]):
    """Observes the action that it was given and rewards its sum; ten steps an episode."""

    observation_space = Box(-1, 1, (2, 2), np.float32)
    action_space = Box(-1, 1, (2, 2), np.float32)

    def __init__(self) -> None:
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._step = 0
        return np.zeros((2, 2), np.float32), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        return np.array(action), float(action.sum()), False, self._step == 10, {}


class Aim(gymnasium.Env[Array, Any]):
    """One step an episode, which pays the more the nearer the action is to the target; 0 is the best, -1 a corner."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, low: float, high: float, target: float) -> None:
        self.action_space = Box(low, high, (1,), np.float32)
        self._target, self._farthest = target, max(high - target, target - low)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Step:
        reward = -abs(float(action[0]) - self._target) / self._farthest
        return np.zeros(1, np.float32), reward, True, False, {}


class Spaces(gymnasium.Env[Any, Any]):
    """Any spaces; never flown."""

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


FLY, RAISE, NAN, DIE = range(4)


class Obedient(gymnasium.Env[Array, Any]):
    """Does what the action says: fly on, raise, observe a NaN, or kill its process, as a crash in C++ would."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Discrete(4)

    def __init__(self) -> None:
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Step:
        if action == RAISE:
            raise RuntimeError("the lander is on fire")
        if action == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        self._step += 1
        value = np.nan if action == NAN else self._step
        return np.array([value], np.float32), 1.0, self._step == 5, False, {}


LONG = 1500


class Coin(gymnasium.Env[Array, Any]):
    """Its seed decides whether an episode takes one step or ``LONG``. Hands the seed on, as many environments do."""

    observation_space = Box(0, LONG, (2,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            np.random.seed(seed)  # takes no more than 32 bits
            np.array(seed, np.int32)
        self._drawn, self._step = self.np_random.random(), 0
        return np.array([self._drawn, 0], np.float32), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        ended = self._step == (1 if self._drawn < 0.5 else LONG)
        return np.array([self._drawn, self._step], np.float32), 1.0, ended, False, {}


class Wrong(gymnasium.Env[Array, Any]):
    """Ends no episode, and gives back what it is told to: callables that take what would be right.

    Args:
        on_reset: makes (observation, info) something else.
        on_step: makes (observation, reward, terminated, truncated, info) something else.
    """

    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)

    def __init__(self, on_reset: Any = tuple, on_step: Any = tuple) -> None:
        self._on_reset, self._on_step = on_reset, on_step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._on_reset((np.zeros(3, np.float32), {}))

    def step(self, action: Any) -> Any:
        return self._on_step((np.zeros(3, np.float32), 1.0, False, False, {}))


def old_step(result: Step) -> Any:
    """As before Gymnasium."""
    return result[:3] + result[4:]


class Unmakeable(gymnasium.Env[Array, Any]):
    """Raises as it is made."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self) -> None:
        raise RuntimeError("the hangar is locked")


class Filmed(gymnasium.Env[Array, Any]):
    """Four steps an episode; shows a grey picture, or something else.

    Args:
        fails_at: the step that raises.
        picture: what is shown instead.
        render_mode: Gymnasium's.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 5}  # noqa: RUF012
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, fails_at: int = 0, picture: Any = None, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._fails_at, self._step = fails_at, 0
        self._picture = np.full((48, 64, 3), 128, np.uint8) if picture is None else picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        if self._step == self._fails_at:
            raise RuntimeError("the camera fell over")
        return np.zeros(1, np.float32), 1.0, self._step == 4, False, {}

    def render(self) -> Any:
        return self._picture


class Counted(Filmed):
    """Rewards who acts as the parity of the steps since the episode began, which nothing else tells."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self._length = 3 + (seed or 0) % 3
        return super().reset(seed=seed)

    def step(self, action: Any) -> Step:
        reward = float(action == self._step % 2)
        self._step += 1
        return np.zeros(1, np.float32), reward, self._step == self._length, False, {}


class Painted(gymnasium.Env[Any, Any]):
    """Shows a picture on which a spot is moved left and right, and draws it twice as large.

    Args:
        size: of the picture, in pixels.
        parts: whether observations are a Dict of the picture and the number of steps.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    action_space = Discrete(3)

    def __init__(self, size: int = 12, parts: bool = False, render_mode: str | None = None) -> None:
        self.render_mode, self._size, self._parts = render_mode, size, parts
        picture, steps = Box(0, 255, (size, size, 3), np.uint8), Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space: Any = Dict({"eye": picture, "steps": steps}) if parts else picture

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "MOVE_LEFT", "UPRIGHTFIRE"]

    def _picture(self) -> Array:
        picture = np.full((self._size, self._size, 3), (0, 0, 200), np.uint8)
        picture[2:6, self._place] = (255, 100, 0)
        return picture

    def _observation(self) -> Any:
        picture = self._picture()
        return {"eye": picture, "steps": np.array([self._step], np.float32)} if self._parts else picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._place, self._step = 6, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._place = min(max(self._place + (0, -1, 1)[action], 0), self._size - 1)
        self._step += 1
        return self._observation(), float(self._place), False, self._step == 50, {}

    def render(self) -> Array:
        return np.repeat(np.repeat(self._picture(), 2, axis=0), 2, axis=1)


class Glow(gymnasium.Env[Array, Any]):
    """Shows how bright it is to be; one step an episode, which costs the square of what the action is off."""

    observation_space = Box(0, 255, (8, 8), np.uint8)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._shown = np.full((8, 8), self.np_random.integers(256), np.uint8)
        return self._shown, {}

    def step(self, action: Any) -> Step:
        off = float(action[0]) - (float(self._shown[0, 0]) / 127.5 - 1)
        return self._shown, -off * off, True, False, {}


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


class Unseen(gymnasium.Env[Array, Any]):
    """Cannot be rendered at all, as environments that know no render_mode."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)


class Faint(gymnasium.Env[Array, Any]):
    """The action that the sign of a small signal on a large offset tells earns 1; ten steps an episode."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Discrete(2)
    offset, signal = 1e9, 0.01

    def _observation(self) -> Array:
        self._sign = int(self.np_random.integers(2))
        return np.array([self.offset + self.signal * (2 * self._sign - 1)])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {}

    def step(self, action: Any) -> Step:
        self._step += 1
        reward = float(action == self._sign)
        return self._observation(), reward, self._step == 10, False, {}


gymnasium.register("Glow-v0", entry_point=f"{__name__}:Glow", disable_env_checker=True)
gymnasium.register("Orders-v0", entry_point=f"{__name__}:Orders", disable_env_checker=True)
gymnasium.register("Obedient-v0", entry_point=f"{__name__}:Obedient", disable_env_checker=True)
gymnasium.register("Coin-v0", entry_point=f"{__name__}:Coin", disable_env_checker=True)
gymnasium.register("Endless-v0", entry_point=f"{__name__}:Wrong", disable_env_checker=True)
gymnasium.register("Limited-v0", entry_point=f"{__name__}:Wrong", max_episode_steps=70, disable_env_checker=True)
gymnasium.register(
    "OldStep-v0", entry_point=f"{__name__}:Wrong", kwargs={"on_step": old_step}, disable_env_checker=True
)
gymnasium.register("Unmakeable-v0", entry_point=f"{__name__}:Unmakeable", disable_env_checker=True)
gymnasium.register("Echo-v0", entry_point=f"{__name__}:Echo", disable_env_checker=True)
gymnasium.register("AimNear-v0", entry_point=f"{__name__}:Aim", kwargs={"low": 3, "high": 5, "target": 4.5})
gymnasium.register("AimFar-v0", entry_point=f"{__name__}:Aim", kwargs={"low": 0, "high": 1000, "target": 300})
gymnasium.register("Faint-v0", entry_point=f"{__name__}:Faint")
gymnasium.register("Counted-v0", entry_point=f"{__name__}:Counted", disable_env_checker=True)
for name, space in {
    "Cells": Discrete(5, start=-2),
    "Choices": MultiDiscrete([[3], [2]], start=[[1], [0]]),
    "Switches": MultiBinary(3),
    "Parts": Dict(here=Discrete(3), there=Tuple([MultiBinary(2), Box(-1, 1, (1,))])),
}.items():
    kwargs = {"space": space}
    gymnasium.register(f"{name}-v0", entry_point=f"{__name__}:Choosing", kwargs=kwargs, disable_env_checker=True)


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
gymnasium.register("Filmed-v0", entry_point=f"{__name__}:Filmed", disable_env_checker=True)
gymnasium.register(
    "FallingCamera-v0", entry_point=f"{__name__}:Filmed", kwargs={"fails_at": 3}, disable_env_checker=True
)
gymnasium.register(
    "Worded-v0", entry_point=f"{__name__}:Filmed", kwargs={"picture": "a moon"}, disable_env_checker=True
)
gymnasium.register("Painted-v0", entry_point=f"{__name__}:Painted", disable_env_checker=True)
gymnasium.register("Unseen-v0", entry_point=f"{__name__}:Unseen", disable_env_checker=True)


class Ticking(gymnasium.Env[Any, Any]):
    """Shows the number of steps so far, in every pixel; each step may be the last, and is from the thirtieth on."""

    observation_space = gymnasium.spaces.Box(0, 255, (20, 20), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._shown(), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._shown(), 1.0, self.np_random.random() < 0.05 or self._steps > 30, False, {}

    def _shown(self) -> Any:
        return np.full((20, 20), self._steps, np.uint8)


gymnasium.register("Ticking-v0", Ticking)
