"""Environments that go wrong, registered where Ray's workers can import them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv


class Broken(CartPoleEnv):
    """Raises at its twentieth step."""

    def step(self, action: Any) -> Any:
        self.flown = getattr(self, "flown", 0) + 1
        if self.flown >= 20:
            raise RuntimeError("the motor is on fire")
        return super().step(action)


class NotANumber(CartPoleEnv):
    """Observes NaNs from its twentieth step on."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        self.flown = getattr(self, "flown", 0) + 1
        return observation if self.flown < 20 else np.full(4, np.nan, np.float32), *rest


class Blind(CartPoleEnv):
    """Cannot be drawn, which it says late."""

    def render(self) -> Any:
        raise RuntimeError("the lamp is broken")


gymnasium.register("Blind-v0", entry_point=Blind)
gymnasium.register("Broken-v0", entry_point=Broken)
gymnasium.register("NotANumber-v0", entry_point=NotANumber)
