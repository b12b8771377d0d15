"""Environments that take their time, for runs that only have to go on while something is done to them.

At full speed they would fill both cores, which other tests need, and their logs, which are read again and again.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv


class Paced(CartPoleEnv):
    """CartPole, some five hundred steps a second at most."""

    def step(self, action: Any) -> Any:
        time.sleep(2e-3)
        return super().step(action)


class SlowlyDrawn(PendulumEnv):
    """Pendulum, ten frames a second at most."""

    def render(self) -> Any:
        time.sleep(0.1)
        return super().render()


gymnasium.register("Paced-v0", entry_point=Paced, max_episode_steps=500)
gymnasium.register("SlowlyDrawn-v0", entry_point=SlowlyDrawn, max_episode_steps=200)
