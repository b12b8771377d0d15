"""``python -m serve.import_sb3 ppo-LunarLander-v2.zip --to runs/sb3``: a Stable-Baselines3 policy as one of ours.

For PPO, A2C and TRPO with MlpPolicy. Nothing is unpickled: weights are read as tensors alone, the rest as plain JSON.

python -m serve.import_sb3 ppo-LunarLander-v2.zip --to runs/sb3
python -m serve.import_sb3 best_model.zip --env Pendulum-v1 --to runs/pendulum
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("serve.import_sb3")

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
from actors.policy import Policy
from actors.spaces import Discrete
from actors.spec import ACTIVATIONS
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from serve.hub.directories import whole_directory
from serve.hub.formats.sb3 import read_data, read_weights

_PROG = "python -m serve.import_sb3"
_IMPORTABLE = "what can be imported is PPO, A2C or TRPO with MlpPolicy"
_NAMES = {"td3": "TD3 or DDPG", "qrdqn": "QR-DQN", "crossq": "CrossQ"}
"""Names of algorithms whose policies ours cannot hold, where they are not their modules' in capitals."""
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
    """Make a run directory from a policy that Stable-Baselines3's PPO, A2C or TRPO has saved."""

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
    data, version = read_data(file)
    algorithm = _algorithm(data)
    state = read_weights(file)
    _refuse_other_kinds(data, state)
    env = _environment(env_id or _named_environment(file))
    trained = {
        "algorithm": algorithm,
        "library": "stable-baselines3",
        "library_version": version,
        "source": file.name,
        "env_id": env_id or _named_environment(file),
        "timesteps": _whole_number(data, "num_timesteps"),
        "seed": _whole_number(data, "seed") if data.get("seed") is not None else None,
    }
    layers = _layers(state)
    weights: dict[str, Array] = {}
    for i, (w, b) in enumerate(layers):
        weights |= {f"w{i}": w, f"b{i}": b}
    if "log_std" in state:
        weights["log_std"] = state["log_std"]
    spec = env.policy_spec(
        scale_actions=False,  # it clips: scaling is for policies that squash their actions, which these do not
        hidden_sizes=tuple(int(b.shape[0]) for _, b in layers[:-1]),
        activation=activation or _activation(data),
        version=_whole_number(data, "_n_updates"),
        trained=trained,
    )
    sizes = (layers[0][0].shape[0], layers[-1][1].shape[0], "gaussian" if "log_std" in state else "categorical")
    needed = (spec.layer_sizes[0], spec.layer_sizes[-1], spec.distribution)
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
            raise UserError(f"this is {other}; {_IMPORTABLE}")
    if data.get("use_sde", False) is not False:
        raise UserError("this policy explores with gSDE (use_sde=True), which ours does not have")
    for name in state:
        if not (_LAYER.fullmatch(name) or _HEAD.fullmatch(name)):
            raise UserError(f"unknown weight {name[:200]!r}; {_IMPORTABLE}")
    space = _hint(data.get("action_space"), ":type:")
    if space in ("MultiDiscrete", "MultiBinary"):
        raise UserError(f"this policy has {space} actions; imported are Discrete and Box ones")


def _algorithm(data: dict[str, Any]) -> str:
    """Which algorithm saved these data, by the options that it alone has.

    TRPO's policy is the same network as PPO's and A2C's. MaskablePPO's is too, but flies under masks of its
    environment, without which it takes actions that it never learned of.

    Raises:
        UserError: none of those whose policies are ours.
    """
    policy_class = data.get("policy_class")
    module = str(policy_class.get("__module__") if isinstance(policy_class, dict) else "")
    if "maskable" in module:
        raise UserError("this is MaskablePPO, whose actions are masked, which ours are not")
    theirs = re.match(r"(?:stable_baselines3|sb3_contrib)\.(?!common|ppo|a2c|trpo)(\w+)", module)
    if theirs:
        raise UserError(f"this is {_NAMES.get(theirs[1], theirs[1].upper())}; {_IMPORTABLE}")
    if "cg_max_steps" in data:
        return "trpo"
    if "clip_range" in data:
        return "ppo"
    if "gae_lambda" in data and "n_epochs" not in data and "batch_size" not in data:
        return "a2c"
    raise UserError(f"this is of an unknown algorithm; {_IMPORTABLE}")


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
    if isinstance(env.action, Discrete) and env.action.start:
        raise UserError(f"{env.env_id} counts actions from {env.action.start}, Stable-Baselines3's policies from 0")
    return env


def _newer_version(env_id: str) -> str | None:
    name, _, version = env_id.rpartition("-v")
    if not version.isdigit():
        return None
    newer = [spec.version for spec in gymnasium.registry.values() if spec.name == name and spec.namespace is None]
    found = min((number for number in newer if number is not None and number > int(version)), default=None)
    return None if found is None else f"{name}-v{found}"


def _whole_number(data: dict[str, Any], name: str) -> int:
    """A count among the data; 0 where there is none."""
    value = data.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise UserError(f"the file is damaged: its {name} must be a whole number, not {str(value)[:40]!r}")
    return value


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
            say(console, f"{spec.trained['env_id']} is retired, its successor {spec.env_id} has the same spaces: used")
        say(
            console,
            f"{spec.trained['algorithm']} of {' × '.join(map(str, spec.layer_sizes))} units, "
            f"{spec.network.activation}; "
            "if it was trained with VecNormalize, its statistics are in a pickle beside the zip file, which is not "
            "read: without them the policy flies badly",
        )
        say(console, f"policy for {spec.env_id}: {command.to / 'policy'}")
