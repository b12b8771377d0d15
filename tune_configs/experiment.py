"""An experiment: which losses and peers, on what, with what budget; and the trials that it comes to."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pydantic

from actors.environments import EnvironmentInfo, describe
from actors.errors import UserError, unknown
from learner.dataset.config import DatasetConfig
from learner.keeping.storage import Disk, Storage, open_storage
from learner.run.config import TrainConfig, overlay, read_config
from learner.run.learner_group import LearnerGroup
from learner.run.presets import PRESETS, preset
from learner.run.run_directory import json_bytes, versions
from tune_configs.peers.registry import PEERS, require_peer

COURSE_LOSSES = ("vpg", "bpg", "epg", "cpg", "aac", "a2c", "ppo", "impala")
COURSE_EPISODES = 6000
RECORDED_LOSSES = ("bc", "dt")
RECORDED_UPDATES = 30
CURVE_EPISODES = 30
"""Of an evaluation beside training: few, so that there are many evaluations."""
_FILE = "experiment.json"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is compared. Two experiments that are equal here give comparable results."""

    losses: tuple[str, ...] = COURSE_LOSSES
    """Presets, or JSON files of options over the ppo preset, which are called by their names without .json."""
    peers: tuple[str, ...] = ()
    """Other libraries on the same budget: their PPO with the Deep RL course's settings (rllib, sb3), their DQN
    (rllib-dqn, sb3-dqn) and SAC (sb3-sac) with RL Baselines3 Zoo's."""
    seeds: int = 3
    """Runs of each, with seeds from 0."""
    env: str = "Beresheet-v2"
    """A Gymnasium id; of recordings that are compared on, their own."""
    dataset: str | None = None
    """A directory of recorded episodes that all losses learn from, bc and dt if none are named; see learner.record."""
    best_share: float | None = None
    """Of those episodes the share that is learned from, those of the highest returns; over every file's own."""
    episodes: int | None = None
    """Training episodes a run; 6,000 if steps are not given either."""
    steps: int | None = None
    """Environment steps a run, instead of or beside episodes; of recordings the steps that are read."""
    updates: int | None = None
    """Updates a run, instead of or beside those; of recordings 40 if steps are not given either."""
    actors: int = 1
    """Rollout actors of each run."""
    max_policy_lag: int | None = None
    """Over every preset's own; with 0, the same experiment gives the same results to the bit."""
    evaluation_episodes: int = 100
    """Gymnasium episodes that each final policy flies, from seeds that no training used."""
    threshold: float | None = None
    """The mean return whose time is told; None: the environment's own reward threshold."""

    def __post_init__(self) -> None:
        for name in ("episodes", "steps", "updates", "seeds", "actors", "evaluation_episodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more, not {value}")
        if not self.losses and not self.peers:
            raise UserError("nothing to compare: name at least one of --losses or --peers")
        if self.dataset is None and self.best_share is not None:
            raise UserError("best_share is of a dataset: give --dataset DIRECTORY too")
        if self.dataset is not None and self.episodes is not None:
            raise UserError("who learns from a dataset flies no episodes: give updates or steps instead")
        if self.peers and self.updates is not None:
            raise UserError("updates of peers are others than ours: give episodes or steps instead")
        for peer in self.peers:
            if peer not in PEERS:
                raise unknown("peer", peer, PEERS)
        labels = [*map(label, self.losses), *self.peers]
        for name in labels:
            if labels.count(name) > 1:
                raise UserError(f"{name} is named twice among the losses and peers")

    @property
    def budget(self) -> dict[str, int | None]:
        """The stop options that end a run."""
        budget = {"max_episodes": self.episodes, "total_timesteps": self.steps, "max_updates": self.updates}
        if not any(budget.values()):
            budget |= (
                {"max_updates": RECORDED_UPDATES} if self.dataset is not None else {"max_episodes": COURSE_EPISODES}
            )
        return budget


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of an experiment; plain data, so that it travels as JSON."""

    label: str
    """The loss's or peer's name."""
    seed: int
    config: dict[str, Any]
    """TrainConfig's fields; of a peer only the environment, the seed and the budget count."""
    run_dir: str
    """A path or a URI that means the same on every node."""
    evaluation_episodes: int
    command: str
    """That started the experiment."""
    is_peer: bool = False

    @property
    def name(self) -> str:
        """Unique in the experiment."""
        return f"{self.label}-{self.seed}"

    @property
    def is_recorded(self) -> bool:
        """Whether it learns from recordings, and flies nothing."""
        return self.config.get("dataset", {}).get("dataset") is not None

    @functools.cached_property
    def storage(self) -> Storage:
        """Its run's directory."""
        return open_storage(self.run_dir)


def label(loss: str) -> str:
    """How a loss is called in tables: a preset's name, or a file's without its ending."""
    return Path(loss).stem if loss.endswith(".json") else loss


def configs_of(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The configuration behind every label, peers first, because they take longest; its seed is of no account.

    Raises:
        UserError: an unknown loss or environment, or a file that cannot be read.
    """
    describe(experiment.env)
    stop = {**experiment.budget, "max_seconds": None, "target_return": None}
    changes: dict[str, Any] = {
        "env": experiment.env,
        "stop": stop,
        "fleet": {"actors": experiment.actors},
        "evaluation": {"eval_every": None},  # what is compared is the last policy, flown when its run has ended
        "dataset": {"dataset": None},
    }
    if experiment.dataset is not None:  # who flies nothing has no other curve
        changes["evaluation"] = {"eval_every": 1, "eval_share": 0.5, "eval_episodes": CURVE_EPISODES}
        changes["dataset"] = {"dataset": _from_anywhere(experiment.dataset)}
    if experiment.best_share is not None:
        changes["dataset"]["best_share"] = experiment.best_share
    if experiment.max_policy_lag is not None:
        changes["fleet"]["max_policy_lag"] = experiment.max_policy_lag
    configs = {peer: preset("ppo") for peer in experiment.peers}
    for loss in experiment.losses:
        if loss.endswith(".json"):
            configs[label(loss)] = read_config(loss, preset("ppo"))
        elif loss in PRESETS:
            configs[loss] = preset(loss)
        else:
            raise unknown("loss", loss, PRESETS)
    return {name: overlay(config, changes, name).to_dict() for name, config in configs.items()}


class Planned(NamedTuple):
    """An experiment as it was started."""

    experiment: Experiment
    configs: dict[str, dict[str, Any]]
    """Of every label."""
    command: str
    recorded: dict[str, Any] | None = None
    """What the dataset holds: see ``Dataset.summary``; None: actors fly."""


def plan(experiment: Experiment, command: str) -> Planned:
    """What an experiment comes to that a command starts.

    Raises:
        UserError: see ``configs_of``; or the dataset cannot be read.
    """
    configs = configs_of(experiment)
    recorded = DatasetConfig(experiment.dataset).open().summary() if experiment.dataset is not None else None
    return Planned(experiment, configs, command, recorded)


def require_all(planned: Planned) -> None:
    """Make sure that every trial can at least begin here.

    Raises:
        UserError: a peer is not installed, something cannot fly this environment, or does not learn from what others
            learn from.
    """
    environment = describe(planned.experiment.env)
    require_one_source(planned)
    for name, config in planned.configs.items():
        if name in planned.experiment.peers:
            require_peer(name, environment)
        else:
            require_learnable(name, overlay(TrainConfig(), config, name), environment)


def require_one_source(planned: Planned) -> None:
    """Make sure that all learn from recordings, and there are some, or all from what they fly.

    Raises:
        UserError: they do not.
    """
    configs = {name: overlay(TrainConfig(), config, name) for name, config in planned.configs.items()}
    recorded = [name for name, config in configs.items() if config.algorithm.is_offline]
    flying = [name for name in configs if name not in recorded]
    if recorded and flying:
        raise UserError(
            f"{' and '.join(recorded)} from recordings, {' and '.join(flying)} from what is flown: compare what learns "
            "from the one apart from what learns from the other"
        )
    for config in configs.values():
        config.require_source()


def require_learnable(name: str, config: TrainConfig, environment: EnvironmentInfo) -> None:
    """Make sure that a configuration's algorithm can learn to fly an environment with its network.

    Raises:
        UserError: it cannot; one line that begins with its name.
    """
    try:
        dataset = config.dataset.open_for(environment) if config.dataset.dataset is not None else None
        LearnerGroup(config, environment, None, dataset=dataset)  # which starts nothing yet
    except UserError as error:
        raise UserError(f"{name} cannot learn {environment.env_id}: {error}") from error


def open_experiment(location: str) -> Storage:
    """The directory of an experiment, or of several, at a path or a URI.

    Raises:
        UserError: the URI names no store that is known, or has options, which trials would not get.
    """
    if "://" in location and "?" in location:
        raise UserError(f"give endpoint and region in AWS_ENDPOINT_URL and AWS_DEFAULT_REGION, not in {location}")
    return open_storage(location)


def trials_of(planned: Planned, directory: Storage) -> list[Trial]:
    """Every run of an experiment that lives in ``directory``."""
    experiment, configs, command, _ = planned
    root = directory.path.resolve() if isinstance(directory, Disk) else directory
    return [
        Trial(
            label=name,
            seed=seed,
            config={**config, "seed": seed},
            run_dir=f"{root}/runs/{name}-{seed}",
            evaluation_episodes=experiment.evaluation_episodes,
            command=command,
            is_peer=name in experiment.peers,
        )
        for name, config in configs.items()
        for seed in range(experiment.seeds)
    ]


def train_config(trial: Trial) -> TrainConfig:
    """The configuration that a trial starts with."""
    return overlay(TrainConfig(), trial.config, trial.name)


def require_free(planned: Planned, directory: Storage) -> None:
    """Make sure that a directory holds no experiment.

    Raises:
        UserError: it holds one.
        OSError: it cannot be read.
    """
    if _FILE in directory.names():
        same = load(directory)[:2] == planned[:2]
        advice = f"go on with --resume {directory}" if same else "choose another --name"
        raise UserError(f"{directory} already holds {'this' if same else 'another'} experiment: {advice}")


def save(planned: Planned, directory: Storage) -> None:
    """Start an experiment's directory.

    Raises:
        UserError: it holds another one, or cannot be written.
    """
    require_free(planned, directory)
    data = {
        "command": planned.command,
        **versions(),
        "experiment": dataclasses.asdict(planned.experiment),
        "configs": planned.configs,
        "recorded": planned.recorded,
    }
    try:
        directory.write(_FILE, json_bytes(data))
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror or error}") from error


def load(directory: Storage) -> Planned:
    """The experiment of a directory.

    Raises:
        UserError: there is none, or its file cannot be read or is damaged.
    """
    try:
        data = json.loads(directory.read(_FILE))
        experiment = pydantic.TypeAdapter(Experiment).validate_python(data["experiment"])
        for name, config in data["configs"].items():
            overlay(TrainConfig(), config, name)
        return Planned(experiment, data["configs"], str(data["command"]), data.get("recorded"))
    except FileNotFoundError:
        raise UserError(f"no experiment in {directory}: {_FILE} is missing") from None
    except OSError as error:
        raise UserError(f"cannot read {directory}/{_FILE}: {error.strerror or error}") from error
    except UserError as error:  # of what it names: a module that is not here, say
        raise UserError(f"{directory}/{_FILE}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory}/{_FILE} is damaged: {str(error).splitlines()[0]}") from error


def _from_anywhere(location: str) -> str:
    """A directory by a name that means the same in every process: those of trials work in directories of their own."""
    storage = open_storage(location)
    return str(storage.path.resolve()) if isinstance(storage, Disk) else location
