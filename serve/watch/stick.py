"""What a viewer flies by hand: an environment's discrete actions by name, and the keys that stand for them."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import msgspec
import numpy as np

from actors.doom import is_doom
from serve.watch.lander import LANDER_ACTIONS


class Stick(msgspec.Struct, frozen=True):
    """What a viewer may fly by hand: a choice of actions, and which of them the keys stand for."""

    labels: tuple[str, ...]
    idle: int | None = None
    """The action while no key is held; None: the last one stays."""
    left: int | None = None
    up: int | None = None
    right: int | None = None
    down: int | None = None
    fire: int | None = None


LANDER_STICK = Stick(LANDER_ACTIONS, idle=0, left=1, up=2, right=3)
CONTINUOUS_LANDER = [np.array(action, np.float32) for action in ((0, 0), (0, -1), (1, 0), (0, 1))]
"""The actions that it stands for where they are continuous."""
_WORDS = {
    "idle": ("nothing", "noop"),
    "left": ("left", "turn left", "move left"),
    "up": ("up", "move forward", "fire", "attack"),
    "right": ("right", "turn right", "move right"),
    "down": ("down", "move backward"),
    "fire": ("fire", "attack"),
}
"""The names of actions that a key may stand for: it stands for the first of them that there is."""


def stick_of(env: gymnasium.Env[Any, Any]) -> Stick | None:
    """What a viewer may choose from, in the order of the environment's actions; None: these are not discrete."""
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        return None
    n, first = int(env.action_space.n), int(env.action_space.start)
    names = _names(env)
    if len(names) == n:
        keys = {
            key: next((names.index(word) for word in words if word in names), None) for key, words in _WORDS.items()
        }
        return Stick(tuple(names), **keys)
    unnamed = {2: {"left": 0, "right": 1}, 3: {"left": 0, "idle": 1, "right": 2}}
    return Stick(tuple(f"action {first + i}" for i in range(n)), **unnamed.get(n, {"idle": 0}))


def _names(env: gymnasium.Env[Any, Any]) -> list[str]:
    """Those of its actions where it tells them, as ViZDoom and ale-py do; else none."""
    bare: Any = env.unwrapped
    if is_doom(env):
        buttons = [_plain(button.name) for button in bare.game.get_available_buttons()[bare.num_delta_buttons :]]
        pressed = [[buttons[i] for i in np.flatnonzero(choice)] for choice in bare.button_map]
        return [" + ".join(names) or "nothing" for names in pressed]
    if hasattr(bare, "get_action_meanings"):
        return [_plain(name) for name in bare.get_action_meanings()]
    return []


def _plain(name: str) -> str:
    """MOVE_LEFT as move left, UPRIGHTFIRE as up right fire."""
    return re.sub("(UP|DOWN|LEFT|RIGHT)(?=[A-Z])", r"\1 ", name).replace("_", " ").lower()
