"""Environments whose every number is known beforehand. Ray workers import this module by its name."""

import itertools
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from actors.environments import GymnasiumEnvironments
from actors.episode import Array

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


class Unseen(gymnasium.Env[Array, Any]):
    """Cannot be rendered at all, as environments that know no render_mode."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)


gymnasium.register("Obedient-v0", entry_point=f"{__name__}:Obedient", disable_env_checker=True)
gymnasium.register("Unmakeable-v0", entry_point=f"{__name__}:Unmakeable", disable_env_checker=True)
gymnasium.register("Echo-v0", entry_point=f"{__name__}:Echo", disable_env_checker=True)
gymnasium.register("Filmed-v0", entry_point=f"{__name__}:Filmed", disable_env_checker=True)
gymnasium.register(
    "FallingCamera-v0", entry_point=f"{__name__}:Filmed", kwargs={"fails_at": 3}, disable_env_checker=True
)
gymnasium.register(
    "Worded-v0", entry_point=f"{__name__}:Filmed", kwargs={"picture": "a moon"}, disable_env_checker=True
)
gymnasium.register("Unseen-v0", entry_point=f"{__name__}:Unseen", disable_env_checker=True)
