"""``python -m serve.import_sb3 ppo-LunarLander-v2.zip --to runs/sb3``: a Stable-Baselines3 policy as one of ours.

For PPO, A2C, TRPO, DQN, QR-DQN, SAC, TD3 and DDPG with MlpPolicy, with the statistics of VecNormalize where there are
some. gSDE's noise is kept of PPO and A2C; what TD3, DDPG and SAC with gSDE explored with is not, and they act greedily.
Nothing is unpickled: weights are read as tensors alone, statistics from the pickle's opcodes, the rest as plain JSON.

python -m serve.import_sb3 dqn/LunarLander-v2.zip --to runs/lander
python -m serve.import_sb3 best_model.zip --env Pendulum-v1 --vec-normalize vec_normalize.pkl --to runs/pendulum
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("serve.import_sb3")

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from actors import environment_name
from actors.distributions import DISTRIBUTIONS
from actors.environments import EnvironmentInfo
from actors.errors import UserError
from actors.layers import ACTIVATIONS
from actors.policy import Policy
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from serve.hub.directories import whole_directory
from serve.hub.formats.sb3 import read_data, read_weights
from serve.hub.formats.sb3_names import algorithm_of, environment_of, named_environment
from serve.hub.formats.sb3_network import Network, network_of
from serve.hub.formats.vec_normalize import read_vec_normalize, statistics_beside

_PROG = "python -m serve.import_sb3"


@dataclasses.dataclass(frozen=True)
class ImportCommand:
    """Make a run directory from a policy that Stable-Baselines3 has saved."""

    file: Annotated[Path, tyro.conf.Positional]
    """The zip file of ``model.save``."""
    to: Path
    """The directory to make."""
    env: str | None = None
    """The environment; None: from a file name such as ppo/LunarLander-v2.zip or ppo-LunarLander-v2.zip."""
    vec_normalize: Path | None = None
    """The pickle of ``VecNormalize.save``; None: the zoo's vecnormalize.pkl or the Hub's vec_normalize.pkl, if one is
    found beside the zip file."""
    activation: str | None = None
    """tanh, relu or elu; None: what the file says, or else Stable-Baselines3's default for the algorithm."""

    def __post_init__(self) -> None:
        if self.activation not in (None, *ACTIVATIONS):
            raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")


def import_sb3(
    file: Path, env_id: str | None = None, activation: str | None = None, vec_normalize: Path | None = None
) -> Policy:
    """Read a policy from a Stable-Baselines3 file.

    Args:
        file: of ``model.save``.
        env_id: None takes it from the file's name; of a version that was retired, a newer one is taken.
        activation: None takes it from the file.
        vec_normalize: of ``VecNormalize.save``; None: one that is beside the file, if there is any.

    Raises:
        UserError: a file is damaged, its policy is of a kind that ours cannot hold, or does not fit the environment.
    """
    data, version = read_data(file)
    algorithm = algorithm_of(data)
    network = network_of(algorithm, data, read_weights(file), activation)
    named = env_id or named_environment(file)
    env = environment_of(named)
    pickled = vec_normalize or statistics_beside(file, environment_name.parse(named).slug)
    statistics = read_vec_normalize(pickled) if pickled else None
    trained = {
        "algorithm": algorithm,
        "library": "stable-baselines3",
        "library_version": version,
        "source": file.name,
        "vec_normalize": pickled.name if pickled else None,
        "env_id": named,
        "timesteps": _whole_number(data, "num_timesteps"),
        "seed": _whole_number(data, "seed") if data.get("seed") is not None else None,
    }
    _require_fit(file, network, env)
    spec = env.policy_spec(
        scale_actions=network.scale_actions,
        hidden_sizes=network.layer_sizes[1:-1],
        activation=network.activation,
        normalize_observations=statistics is not None,
        distribution=network.distribution,
        version=_whole_number(data, "_n_updates"),
        trained=trained,
    )
    weights = network.weights
    if statistics:
        try:
            weights = weights | statistics.weights(env)
        except UserError as error:
            raise UserError(f"the statistics of {pickled} do not fit: {error}") from error
    return Policy(spec, weights)


def _require_fit(file: Path, network: Network, env: EnvironmentInfo) -> None:
    """Raise UserError unless the environment has as many numbers and actions, and these of the same kind."""
    is_fit = isinstance(env.action, DISTRIBUTIONS[network.distribution].space)
    distribution = network.distribution if is_fit else None
    needed = env.policy_spec(hidden_sizes=network.layer_sizes[1:-1], distribution=distribution)
    takes, gives = network.layer_sizes[0], network.layer_sizes[-1]
    if (takes, gives, is_fit) != (needed.layer_sizes[0], needed.layer_sizes[-1], True):
        raise UserError(
            f"{file.name} does not fit {env.env_id}: it takes {takes} numbers and gives {gives} for "
            f"{network.distribution} actions, the environment needs {needed.layer_sizes[0]}, "
            f"{needed.layer_sizes[-1]} and {needed.distribution}; name the right one by --env"
        )


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
            policy = import_sb3(command.file, command.env, command.activation, command.vec_normalize)
            policy.save(directory / "policy")
        _tell(console, policy)
        say(console, f"policy for {policy.spec.env_id}: {command.to / 'policy'}")


def _tell(console: Console, policy: Policy) -> None:
    """What became of the file."""
    spec = policy.spec
    if spec.env_id != spec.trained["env_id"]:
        say(console, f"{spec.trained['env_id']} is retired, its successor {spec.env_id} has the same spaces: used")
    sizes = " × ".join(map(str, spec.layer_sizes))
    say(console, f"{spec.trained['algorithm']} of {sizes} units, {spec.network.activation}{_exploration(policy)}")
    if spec.network.normalize_observations:
        say(console, f"observations are normalised as {spec.trained['vec_normalize']} says")
    elif spec.trained["vec_normalize"]:
        say(console, f"observations stay as they are: {spec.trained['vec_normalize']} is of rewards alone")
    else:
        say(
            console,
            "no statistics of VecNormalize lie beside it; if it was trained with some, it flies badly without: name "
            "their pickle by --vec-normalize",
        )


def _exploration(policy: Policy) -> str:
    """How it samples, where a reader cannot tell from the algorithm's name; to be appended to what its network is."""
    kind, last = policy.spec.distribution, policy.weights[f"w{len(policy.spec.network.hidden_sizes)}"]
    if kind == "state_dependent_gaussian":
        return ", exploring with gSDE"
    if kind == "epsilon_greedy":
        return f", exploring with ε = {policy.weights['epsilon'][0]:g}"
    if kind == "squashed_gaussian" and not np.hsplit(last, 2)[1].any():
        return "; what it explored with is left behind, so that sampled actions are its greedy ones"
    return ""
