"""Environments that show or draw pictures."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from actors.episode import Array

Step = tuple[Array, float, bool, bool, dict[str, Any]]


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


class Unseen(gymnasium.Env[Array, Any]):
    """Cannot be rendered at all, as environments that know no render_mode."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)


class Ticking(gymnasium.Env[Any, Any]):
    """Shows the number of steps so far, in every pixel; each step may be the last, and is from the thirtieth on.

    Args:
        parts: whether observations are a Dict of the picture and the number.
    """

    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, parts: bool = False) -> None:
        picture, self._parts = Box(0, 255, (20, 20), np.uint8), parts
        self.observation_space: Any = Dict({"eye": picture, "steps": Box(0, 255, (1,))}) if parts else picture

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._shown(), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._shown(), 1.0, self.np_random.random() < 0.05 or self._steps > 30, False, {}

    def _shown(self) -> Any:
        picture = np.full((20, 20), self._steps, np.uint8)
        return {"eye": picture, "steps": np.array([self._steps], np.float32)} if self._parts else picture


gymnasium.register("Glow-v0", entry_point=f"{__name__}:Glow", disable_env_checker=True)
gymnasium.register("Counted-v0", entry_point=f"{__name__}:Counted", disable_env_checker=True)
gymnasium.register("Filmed-v0", entry_point=f"{__name__}:Filmed", disable_env_checker=True)
gymnasium.register(
    "FallingCamera-v0", entry_point=f"{__name__}:Filmed", kwargs={"fails_at": 3}, disable_env_checker=True
)
gymnasium.register(
    "Worded-v0", entry_point=f"{__name__}:Filmed", kwargs={"picture": "a moon"}, disable_env_checker=True
)
gymnasium.register("Painted-v0", entry_point=f"{__name__}:Painted", disable_env_checker=True)
gymnasium.register("Unseen-v0", entry_point=f"{__name__}:Unseen", disable_env_checker=True)
gymnasium.register("Ticking-v0", Ticking)
