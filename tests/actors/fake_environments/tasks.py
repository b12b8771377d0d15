"""Environments that ask for something, and whose every number is known beforehand."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

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


gymnasium.register("Sides-v0", entry_point=Sides, disable_env_checker=True)
gymnasium.register("Tally-v0", entry_point=Tally, disable_env_checker=True)
gymnasium.register("Cue-v0", entry_point=Cue, kwargs={"delay": 8}, disable_env_checker=True)
gymnasium.register("Coin-v0", entry_point=f"{__name__}:Coin", disable_env_checker=True)
gymnasium.register("Echo-v0", entry_point=f"{__name__}:Echo", disable_env_checker=True)
gymnasium.register("AimNear-v0", entry_point=f"{__name__}:Aim", kwargs={"low": 3, "high": 5, "target": 4.5})
gymnasium.register("AimFar-v0", entry_point=f"{__name__}:Aim", kwargs={"low": 0, "high": 1000, "target": 300})
gymnasium.register("Faint-v0", entry_point=f"{__name__}:Faint")
