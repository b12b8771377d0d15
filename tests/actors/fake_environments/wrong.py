"""Environments that do what they must not, where they are told to."""

import os
import signal
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from actors.episode import Array

Step = tuple[Array, float, bool, bool, dict[str, Any]]


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


gymnasium.register("Obedient-v0", entry_point=f"{__name__}:Obedient", disable_env_checker=True)
gymnasium.register("Endless-v0", entry_point=f"{__name__}:Wrong", disable_env_checker=True)
gymnasium.register("Limited-v0", entry_point=f"{__name__}:Wrong", max_episode_steps=70, disable_env_checker=True)
gymnasium.register(
    "OldStep-v0", entry_point=f"{__name__}:Wrong", kwargs={"on_step": old_step}, disable_env_checker=True
)
gymnasium.register("Unmakeable-v0", entry_point=f"{__name__}:Unmakeable", disable_env_checker=True)
