"""What a file of Stable-Baselines3 is of: its environment, from the file's name, and its algorithm, from its data."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import gymnasium

from actors.environment_name import parse
from actors.environments import EnvironmentInfo, describe
from actors.errors import UserError
from actors.spaces import Discrete

IMPORTABLE = "what can be imported is PPO, A2C, TRPO, DQN, QR-DQN, SAC, TD3 or DDPG with MlpPolicy"
_BY_MODULE = {"dqn": "DQN", "qrdqn": "QR-DQN", "sac": "SAC", "td3": "TD3"}
"""Those whose policies are in modules of their own, by these; of PPO, A2C and TRPO they are not."""
_NAMES = {"crossq": "CrossQ"}
"""Names of algorithms whose policies ours cannot hold, where they are not their modules' in capitals."""
_PREFIXES = ("sb3", "ppo", "a2c", "trpo")
_ID = re.compile(r"[A-Za-z]\w*(?:-\w+)*-v\d+")


def algorithm_of(data: dict[str, Any]) -> str:
    """Which algorithm saved these data, by its policy's module and by the options that it alone has.

    TRPO's policy is the same network as PPO's and A2C's, DDPG's the same as TD3's, of which DDPG is a setting.
    MaskablePPO's is PPO's too, but flies under masks of its environment, without which it takes actions that it never
    learned of.

    Raises:
        UserError: none of those whose policies are ours.
    """
    policy_class = data.get("policy_class")
    module = str(policy_class.get("__module__") if isinstance(policy_class, dict) else "")
    if "maskable" in module:
        raise UserError("this is MaskablePPO, whose actions are masked, which ours are not")
    theirs = re.match(r"(?:stable_baselines3|sb3_contrib)\.(?!common|ppo|a2c|trpo)(\w+)", module)
    if theirs and theirs[1] not in _BY_MODULE:
        raise UserError(f"this is {_NAMES.get(theirs[1], theirs[1].upper())}; {IMPORTABLE}")
    if theirs:
        is_ddpg = data.get("policy_delay") == 1 and data.get("target_noise_clip") == 0
        return "DDPG" if theirs[1] == "td3" and is_ddpg else _BY_MODULE[theirs[1]]
    if "cg_max_steps" in data:
        return "TRPO"
    if "clip_range" in data:
        return "PPO"
    if "gae_lambda" in data and "n_epochs" not in data and "batch_size" not in data:
        return "A2C"
    raise UserError(f"this is of an unknown algorithm; {IMPORTABLE}")


def named_environment(file: Path) -> str:
    """The environment that a file is called after, whatever its version is.

    ``ppo/LunarLander-v2.zip`` is the zoo's habit, ``ppo-LunarLander-v2.zip`` the Hub's, and
    ``ppo/LunarLander-v2_1/best_model.zip`` the zoo's while it trains.

    Raises:
        UserError: it is called after none.
    """
    own, folder = _candidates(file.stem), _candidates(re.sub(r"_\d+$", "", file.absolute().parent.name))
    known = {spec.name for spec in gymnasium.registry.values() if spec.namespace is None}
    for candidate in own + folder:
        if candidate.rpartition("-v")[0] in known:
            return candidate
    if not own:
        raise UserError(
            f"{file.name} does not name its environment as ppo/LunarLander-v2.zip and ppo-LunarLander-v2.zip do: "
            "give --env"
        )
    # Of a module of the user's, maybe: what is wrong with it is said where it is looked up.
    return next((name for name in own if re.split("[-_]", name)[0].lower() not in _PREFIXES), own[0])


def _candidates(name: str) -> list[str]:
    """What may be an id in a name: the whole, and what is left without its first word, or words."""
    starts = [0, *(match.end() for match in re.finditer("[-_]", name))]
    return [name[start:] for start in starts if _ID.fullmatch(name[start:])]


def environment_of(env_id: str) -> EnvironmentInfo:
    """The environment, or the next version of it that is still there: Gymnasium has retired LunarLander-v2.

    Raises:
        UserError: there is neither, or its actions are not as Stable-Baselines3's policies count them.
    """
    env = described(env_id)
    if isinstance(env.action, Discrete) and env.action.start:
        raise UserError(f"{env.env_id} counts actions from {env.action.start}, Stable-Baselines3's policies from 0")
    return env


def described(env_id: str) -> EnvironmentInfo:
    """The environment, or the next version of it that is still there.

    Raises:
        UserError: there is neither.
    """
    try:
        return describe(env_id)
    except UserError as error:
        for newer in _newer(env_id):
            try:
                return describe(newer)
            except UserError:  # retired too, or of a package that is not there
                continue
        raise error


def _newer(env_id: str) -> list[str]:
    """The same environment's later versions, the next one first."""
    wanted = parse(env_id)
    name, _, version = wanted.id.rpartition("-v")
    if not (name and version.isdecimal()):
        return []
    specs = [spec for spec in gymnasium.registry.values() if spec.name == name and spec.namespace is None]
    newer = sorted(spec.version for spec in specs if spec.version is not None and spec.version > int(version))
    return [str(dataclasses.replace(wanted, id=f"{name}-v{number}")) for number in newer]
