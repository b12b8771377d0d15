"""``python -m serve.import_sb3 ppo-LunarLander-v2.zip --to runs/sb3``: a Stable-Baselines3 policy as one of ours.

For PPO and A2C with MlpPolicy. Nothing is unpickled: the weights are read as tensors alone, the rest as plain JSON.

python -m serve.import_sb3 ppo-LunarLander-v2.zip --to runs/sb3
python -m serve.import_sb3 best_model.zip --env Pendulum-v1 --to runs/pendulum
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import tyro
from rich.console import Console

from actors.environments import EnvironmentInfo, describe
from actors.episode import Array
from actors.errors import UserError
from actors.policy import ACTIVATIONS, Policy
from learner.command_line import one_line_errors, parse
from serve.directories import whole_directory
from serve.sb3_file import read_sb3

_PROG = "python -m serve.import_sb3"
_OTHERS = {
    "q_net": "DQN",
    "quantile_net": "QR-DQN",
    "actor": "SAC, TD3 or DDPG",
    "lstm_actor": "RecurrentPPO",
    "features_extractor": "a policy with a network before its layers (CnnPolicy, MultiInputPolicy)",
    "pi_features_extractor": "a policy with a network before its layers (CnnPolicy, MultiInputPolicy)",
}
"""What the first part of a weight's name says of policies that ours cannot hold."""
_LAYER = re.compile(r"mlp_extractor\.(shared_net|policy_net|value_net)\.(\d+)\.(weight|bias)")
_HEAD = re.compile(r"(action_net|value_net)\.(weight|bias)|log_std")


@dataclasses.dataclass(frozen=True)
class ImportCommand:
    """Make a run directory from a policy that Stable-Baselines3's PPO or A2C has saved."""

    file: Annotated[Path, tyro.conf.Positional]
    """The zip file of ``model.save``."""
    to: Path
    """The directory to make."""
    env: str | None = None
    """The environment; None: from a file name such as ppo-LunarLander-v2.zip."""
    activation: str | None = None
    """tanh, relu or elu; None: what the file says, or else tanh, which is Stable-Baselines3's default."""

    def __post_init__(self) -> None:
        if self.activation not in (None, *ACTIVATIONS):
            raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")


def import_sb3(file: Path, env_id: str | None = None, activation: str | None = None) -> Policy:
    """Read a policy from a Stable-Baselines3 file.

    Args:
        file: of ``model.save``.
        env_id: None takes it from the file's name; of a version that was retired, a newer one is taken.
        activation: None takes it from the file.

    Raises:
        UserError: the file is damaged, its policy is of a kind that ours cannot hold, or does not fit the environment.
    """
    data, state, version = read_sb3(file)
    _refuse_other_kinds(data, state)
    env = _environment(env_id or _named_environment(file))
    trained = {
        "algorithm": "ppo" if "clip_range" in data else "a2c",
        "library": "stable-baselines3",
        "library_version": version,
        "source": file.name,
        "env_id": env_id or _named_environment(file),
        "timesteps": _integer(data.get("num_timesteps")),
        "seed": data.get("seed") if isinstance(data.get("seed"), int) else None,
    }
    layers = _layers(state)
    weights: dict[str, Array] = {}
    for i, (w, b) in enumerate(layers):
        weights |= {f"w{i}": w, f"b{i}": b}
    if "log_std" in state:
        weights["log_std"] = state["log_std"]
    spec = env.policy_spec(
        hidden_sizes=tuple(int(b.shape[0]) for _, b in layers[:-1]),
        activation=activation or _activation(data),
        version=_integer(data.get("_n_updates")),
        trained=trained,
    )
    sizes = (layers[0][0].shape[0], layers[-1][1].shape[0], "gaussian" if "log_std" in state else "categorical")
    needed = (spec.layer_sizes[0], spec.action_size, spec.actions)
    if sizes != needed:
        raise UserError(
            f"{file.name} does not fit {env.env_id}: it takes {sizes[0]} numbers and gives {sizes[1]} for {sizes[2]} "
            f"actions, the environment needs {needed[0]}, {needed[1]} and {needed[2]}; name the right one by --env"
        )
    return Policy(spec, weights)


def _refuse_other_kinds(data: dict[str, Any], state: dict[str, Array]) -> None:
    for name in state:
        other = _OTHERS.get(name.partition(".")[0])
        if other:
            raise UserError(f"this is {other}; what can be imported is PPO or A2C with MlpPolicy")
    if data.get("use_sde"):
        raise UserError("this policy explores with gSDE (use_sde=True), which ours does not have")
    for name in state:
        if not (_LAYER.fullmatch(name) or _HEAD.fullmatch(name)):
            raise UserError(f"unknown weight {name!r}; what can be imported is PPO or A2C with MlpPolicy")
    space = _hint(data.get("action_space"), ":type:")
    if space in ("MultiDiscrete", "MultiBinary"):
        raise UserError(f"this policy has {space} actions; supported are Discrete and Box actions")


def _layers(state: dict[str, Array]) -> list[tuple[Array, Array]]:
    """Weights [in, out] and biases [out] from the observation to the action, torch's [out, in] turned round.

    Before version 1.8, layers shared with the critic could come first, as shared_net; the actor sees no difference.
    """
    names = []
    for net in ("shared_net", "policy_net"):
        indices = sorted(
            int(match[2])
            for name in state
            if (match := _LAYER.fullmatch(name)) and match[1] == net and match[3] == "weight"
        )
        names += [f"mlp_extractor.{net}.{i}" for i in indices]
    names.append("action_net")
    layers = []
    for name in names:
        w, b = state.get(f"{name}.weight"), state.get(f"{name}.bias")
        if w is None or b is None or w.ndim != 2 or b.ndim != 1:
            raise UserError(f"the file is damaged: {name} is no layer of a weight and a bias")
        layers.append((np.ascontiguousarray(w.T), b))
    return layers


def _activation(data: dict[str, Any]) -> str:
    """From the text that Stable-Baselines3 writes beside the pickle, "<class 'torch.nn.modules.activation.ReLU'>"."""
    name = _hint(data.get("policy_kwargs"), "activation_fn")
    if name is None:
        return "tanh"
    if name.lower() not in ACTIVATIONS:
        raise UserError(f"this policy's activation is {name}; supported are {', '.join(ACTIVATIONS)}")
    return name.lower()


def _hint(entry: Any, key: str) -> str | None:
    """The class that an entry of ``data`` names in words: "<class 'package.Name'>" is Name."""
    words = entry.get(key) if isinstance(entry, dict) else None
    match = re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", words) if isinstance(words, str) else None
    return match[1] if match else None


def _named_environment(file: Path) -> str:
    match = re.fullmatch(r"[A-Za-z0-9]+[-_](\w[\w.-]*-v\d+)", file.stem)
    if match is None:
        raise UserError(f"{file.name} does not name its environment as ppo-LunarLander-v2.zip does: give --env")
    return match[1]


def _environment(env_id: str) -> EnvironmentInfo:
    """The environment, or the next version of it that is still there: Gymnasium has retired LunarLander-v2."""
    try:
        env = describe(env_id)
    except UserError:
        newer = _newer_version(env_id)
        if newer is None:
            raise
        env = describe(newer)
    if env.observation_space.dtype == np.uint8 and len(env.observation_space.shape) == 3:
        raise UserError(f"{env_id} shows pictures, which Stable-Baselines3 scales before its network sees them")
    return env


def _newer_version(env_id: str) -> str | None:
    name, _, version = env_id.rpartition("-v")
    if not version.isdigit():
        return None
    newer = [spec.version for spec in gymnasium.registry.values() if spec.name == name and spec.namespace is None]
    found = min((number for number in newer if number is not None and number > int(version)), default=None)
    return None if found is None else f"{name}-v{found}"


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else 0


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    with one_line_errors(_PROG):
        command = parse(ImportCommand, sys.argv[1:] if arguments is None else arguments, None, _PROG, __doc__ or "")
        console = Console()
        with whole_directory(command.to) as directory:
            policy = import_sb3(command.file, command.env, command.activation)
            policy.save(directory / "policy")
        spec = policy.spec
        if spec.env_id != spec.trained["env_id"]:
            console.print(f"{spec.trained['env_id']} is retired, its successor {spec.env_id} has the same spaces: used")
        console.print(
            f"{spec.trained['algorithm']} of {' × '.join(map(str, spec.layer_sizes))} units, {spec.activation}; "
            "if it was trained with VecNormalize, its statistics are in a pickle beside the zip file, which is not "
            "read: without them the policy flies badly",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"policy for {spec.env_id}: {command.to / 'policy'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
