"""How fast an environment is flown in real time."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.wrappers import AtariPreprocessing

from actors.atari import is_atari
from actors.doom import is_doom

_ATARI_FRAMES = 60
"""A second, on the console; ale-py's metadata say 30."""


def steps_a_second(env: gymnasium.Env[Any, Any], otherwise: float) -> float:
    """Steps in a second of real time: the frames that it draws in one, or fewer where a step takes several.

    ``otherwise`` where it does not say how many frames it draws.
    """
    bare: Any = env.unwrapped
    frames = float(env.metadata.get("render_fps") or otherwise)
    if is_doom(env):
        return frames / float(bare.frame_skip)
    if not is_atari(bare.spec):
        return frames
    skipped = bare._frameskip  # or the bounds of a random number, the upper one excluded
    steps = _ATARI_FRAMES / float(skipped if isinstance(skipped, int) else (sum(skipped) - 1) / 2)
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, AtariPreprocessing):
            steps /= layer.frame_skip
        layer = layer.env
    return steps
