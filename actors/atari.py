"""Atari: Gymnasium's environments in their wrappers, and the options with which EnvPool's are the same.

Frames and rewards are equal to the bit, but for what is seen after an episode's last step if that was cut short.
EnvPool's starts differ where ``noop_max`` is more than 1, or actions stick: they are as likely, from other seeds.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from actors.environment_name import EnvironmentName, WrapperName

_FRAMES = "max_num_frames_per_episode"
_SAME = ("repeat_action_probability", "full_action_space", "mode", "difficulty")
"""Arguments of ale-py's environment that EnvPool's has by the same names."""


def is_atari(spec: gymnasium.envs.registration.EnvSpec | None) -> bool:
    """Whether it is one of ale-py's; those end episodes themselves, after so many frames."""
    return spec is not None and spec.entry_point == "ale_py.env:AtariEnv"


def in_envpool(name: EnvironmentName) -> tuple[str, dict[str, Any]] | str:
    """EnvPool's name of ale-py's environment, and the options that make it the same; or why there are none."""
    arguments = {"frameskip": 4, **gymnasium.spec(name.made).kwargs, **name.arguments}
    if lacking := arguments.keys() - {"game", "frameskip", "obs_type", _FRAMES, *_SAME}:
        return f"EnvPool has no argument {min(lacking)} of it"
    if not name.wrappers:
        return "EnvPool flies it as AtariPreprocessing shows it"
    names = ("AtariPreprocessing", "FrameStackObservation")
    for i, wrapper in enumerate(name.wrappers):
        if names[i : i + 1] != (wrapper.name,):
            return f"wrapper {wrapper.name} is Gymnasium's"
    if arguments["frameskip"] != 1:
        return "EnvPool skips frames as AtariPreprocessing does, after frameskip=1"
    seen = _options(AtariPreprocessing, name.wrappers[:1])
    stack = _options(FrameStackObservation, name.wrappers[1:]) if name.wrappers[1:] else {"stack_size": 1}
    for option, value in seen.items():
        if isinstance(value, bool) and value != (option == "grayscale_obs"):
            return f"EnvPool has no AtariPreprocessing({option}={value})"  # it plays on after a life is lost
    if seen["noop_max"] < 1:
        return "EnvPool begins with a no-op at least, AtariPreprocessing(noop_max=1)"
    if stack.get("padding_type", "reset") != "reset":
        return "EnvPool fills a stack with an episode's first frame, padding_type='reset'"
    size = seen["screen_size"]
    width, height = size if isinstance(size, tuple) else (size, size)
    options = {
        **{key: arguments[key] for key in _SAME if arguments.get(key) is not None},
        **{"noop_max": seen["noop_max"], "frame_skip": seen["frame_skip"], "stack_num": stack["stack_size"]},
        **{"img_width": width, "img_height": height, "use_fire_reset": False},
    }
    if arguments.get(_FRAMES):
        options["max_episode_steps"] = -(-arguments[_FRAMES] // seen["frame_skip"])
    return f"{arguments['game'].title().replace('_', '')}-v5", options


def _options(kind: Any, wrappers: Sequence[WrapperName]) -> dict[str, Any]:
    """What a wrapper is made with, its defaults among it."""
    defaults = {key: parameter.default for key, parameter in inspect.signature(kind).parameters.items()}
    return {**defaults, **wrappers[0].arguments}
