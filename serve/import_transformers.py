"""``python -m serve.import_transformers DIR --env Hopper-v5 --to imported/hopper``: a Decision Transformer as one of ours.

For checkpoints of transformers' ``DecisionTransformerModel``, from a directory or from the Hugging Face Hub. What it
flies with and no file of it has is read in its model card's text, or given: the mean and standard deviation of states,
what returns were divided by, and the return to ask for. Nothing is unpickled, and transformers need not be installed.

python -m serve.import_transformers edbeeching/decision-transformer-gym-hopper-expert --env Hopper-v5 --scale 1000 --target-return 3600 --to imported/hopper
python -m serve.import_transformers ./my-dt --env Pendulum-v1 --state-mean 0.1 0 -0.2 --state-std 0.7 0.7 3 --scale 100 --target-return -200 --to imported/pendulum
"""  # noqa: E501

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("serve.import_transformers")

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from rich.console import Console

from actors.environments import EnvironmentInfo
from actors.episode import Array
from actors.errors import UserError
from actors.policy import Policy
from actors.spaces import Box
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from serve.hub.directories import whole_directory
from serve.hub.formats.card_numbers import read_card_numbers
from serve.hub.formats.checkpoint import read_card, read_config, read_tensors
from serve.hub.formats.decision_transformer import DecisionTransformer, read_decision_transformer
from serve.hub.formats.sb3_names import described
from serve.hub.hub_api import check_repo_id
from serve.hub.hub_checkpoint import fetch_checkpoint
from serve.service.policies import check

_PROG = "python -m serve.import_transformers"
_LOG_STD = -20.0
"""The logarithm of σ that an imported policy gets: it has learned none, so that sampled actions are its greedy ones."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What a Decision Transformer flies with that its checkpoint does not have; None: its model card says it."""

    state_mean: tuple[float, ...] | None = None
    """The mean of each number of the states that it was trained on."""
    state_std: tuple[float, ...] | None = None
    """Their standard deviations."""
    scale: float | None = None
    """What returns were divided by in training: 1000 for Hopper, Walker2d and HalfCheetah in the paper."""
    target_return: float | None = None
    """The return to ask for, in the environment's units: 3600 for Hopper."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            values = np.array([] if value is None else value, np.float64)
            if not np.isfinite(values).all():
                raise UserError(f"{name} must be of numbers, not {value}")
            if name in ("state_std", "scale") and not (values > 0).all():
                raise UserError(f"{name} must be positive, not {value}")

    def completed(self, card: str, state_dim: int) -> Told:
        """What was given, and where nothing was what the text of a model card says.

        Raises:
            UserError: something is missing still, or of another length.
        """
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        found = dataclasses.asdict(read_card_numbers(card, state_dim))
        told = Told(**(found | given))
        if missing := [name for name, value in dataclasses.asdict(told).items() if value is None]:
            options = [f"--{name.replace('_', '-')}" for name in missing]
            raise UserError(
                f"the model card does not say its {_listed(missing)}: give {_listed(options)}"
                + (f", {state_dim} numbers each" if {"state_mean", "state_std"} & {*missing} else "")
            )
        for name in ("state_mean", "state_std"):
            if len(getattr(told, name)) != state_dim:
                raise UserError(f"{name} has {len(getattr(told, name))} numbers, and a state of the model {state_dim}")
        return told


@dataclasses.dataclass(frozen=True)
class ImportCommand:
    """Make a run directory from a Decision Transformer of the transformers library."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A directory of ``save_pretrained``, or user/name on the Hub."""
    env: str
    """The environment; of a version that was retired, a newer one is taken."""
    to: Path
    """The directory to make."""
    told: tyro.conf.OmitArgPrefixes[Told] = Told()
    window: int | None = None
    """Steps that the model attends to, the K of the paper; None: max_length of its config.json, or else 20."""
    revision: str | None = None
    """A branch, tag or commit on the Hub; None: main."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise UserError(f"window must be 1 or more, not {self.window}")
        if not self.is_local:
            check_repo_id(self.checkpoint)
        elif self.revision:
            raise UserError(f"--revision is for the Hub, and {self.checkpoint} is a directory here")

    @property
    def is_local(self) -> bool:
        """Whether it names a directory of this machine."""
        return Path(self.checkpoint).is_dir()


def import_transformers(
    directory: Path, env_id: str, told: Told, window: int | None = None, source: str | None = None
) -> Policy:
    """Read a policy from a checkpoint of transformers' ``DecisionTransformerModel``.

    Args:
        directory: of ``save_pretrained``.
        env_id: what it is for; of a version that was retired, a newer one is taken.
        told: what the checkpoint does not have.
        window: steps that it attends to; None: what its config.json says.
        source: what the policy says of where it is from; None: the directory's name.

    Raises:
        UserError: a file is missing or damaged, is of another model, or does not fit the environment.
    """
    model = read_decision_transformer(read_config(directory), window)
    env = described(env_id)
    _require_fit(model, env)
    told = told.completed(read_card(directory), model.state_dim)
    trained: dict[str, Any] = {
        "algorithm": "Decision Transformer",
        "library": "transformers",
        "library_version": model.version,
        "source": source or directory.resolve().name,
        "env_id": env_id,
        "scale": told.scale,
    }
    spec = env.policy_spec(
        scale_actions=False, distribution="gaussian", target_return=told.target_return, trained=trained, **model.network
    )
    shapes = spec.weight_shapes()
    core = model.weights(read_tensors(directory), shapes)
    return Policy(spec, core | _own_weights(told, model.act_dim, spec.statistics_dtype))


def _require_fit(model: DecisionTransformer, env: EnvironmentInfo) -> None:
    """Raise UserError unless states and actions of the environment are as many numbers as the model's."""
    is_fit = isinstance(env.observation, Box) and isinstance(env.action, Box)
    takes, gives = env.observation.inputs, env.action.inputs
    if not is_fit or (takes, gives) != (model.state_dim, model.act_dim):
        raise UserError(
            f"the model does not fit {env.env_id}: it is told of {model.state_dim} numbers and gives {model.act_dim}, "
            f"the environment shows {env.observation.in_words()} and takes {env.action.in_words()}; name the right one "
            "by --env"
        )


def _own_weights(told: Told, actions: int, statistics: str) -> dict[str, Array]:
    """What a checkpoint does not have: the core gives actions already, and the output layer passes them on."""
    weights: dict[str, Array] = {
        "observation_mean": np.array(told.state_mean, statistics),
        "observation_std": np.array(told.state_std, statistics),
        "core_return_std": np.array([told.scale], np.float32),
        "w0": np.eye(actions, dtype=np.float32),
        "b0": np.zeros(actions, np.float32),
        "log_std": np.full(actions, _LOG_STD, np.float32),
    }
    return weights


def _listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    disable_progress_bars()
    with one_line_errors(_PROG):
        command = parse(ImportCommand, sys.argv[1:] if arguments is None else arguments, None, _PROG, __doc__ or "")
        console = Console()
        with whole_directory(command.to) as directory:
            source = Path(command.checkpoint)
            if not command.is_local:
                source = directory / "fetched"
                with console.status(f"fetching {command.checkpoint}"):
                    fetch_checkpoint(command.checkpoint, source, command.revision)
            name = None if command.is_local else command.checkpoint
            try:
                policy = import_transformers(source, command.env, command.told, command.window, name)
                check(policy)
            except UserError as error:
                raise UserError(f"{command.checkpoint}: {error}") from error
            policy.save(directory / "policy")
            if not command.is_local:
                shutil.rmtree(source)
        _tell(console, policy, command)
        say(console, f"policy for {policy.spec.env_id}: {command.to / 'policy'}")


def _tell(console: Console, policy: Policy, command: ImportCommand) -> None:
    """What became of the checkpoint."""
    spec, network = policy.spec, policy.spec.network
    if spec.env_id != command.env:
        say(console, f"{command.env} is not there any more, {spec.env_id} is its successor: used")
    say(
        console,
        f"Decision Transformer of {network.memory_layers} blocks of {network.memory_size} units, attending to "
        f"{network.memory_window} steps; its actions are not sampled",
    )
    scale = spec.trained["scale"]
    say(console, f"it acts for a return of {spec.target_return:g}, of which it is told divided by {scale:g}")
    if from_card := [name for name, value in dataclasses.asdict(command.told).items() if value is None]:
        say(console, f"from the model card: {_listed(from_card)}; options take their place")
