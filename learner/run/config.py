"""The configuration of a training run, as one tree of frozen dataclasses, and how files are read into it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import pydantic

from actors.errors import UserError, unknown
from actors.files import INFINITIES, json_text, read_json
from actors.fleet_config import FleetConfig
from actors.rollout import RolloutConfig
from actors.seeds import check_seeds
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.ppo import PPO
from learner.algorithms.registry import changed_to, find_algorithm, name_of
from learner.dataset.config import DatasetConfig
from learner.networks.config import NetworkConfig
from learner.optimisation.config import OptimisationConfig
from learner.run.older import modernised
from learner.run.placement import PlacementConfig

_LIMITS = ("total_timesteps", "max_episodes", "max_seconds", "max_updates")


@dataclasses.dataclass(frozen=True)
class StopConfig:
    """When a run ends: at whichever of these comes first."""

    target_return: float | None = None
    """The policy that the run hands over scores this: the mean of ``eval_episodes`` episodes on Gymnasium. It is not
    the return that a policy of preset dt acts for; for that one see learner.evaluate."""
    window: int = 100
    """Episodes that the running mean of training is taken over."""
    total_timesteps: int | None = 1_000_000
    """Environment steps."""
    max_episodes: int | None = None
    """Episodes."""
    max_seconds: float | None = None
    """Seconds since collection began, those before a resume included."""
    max_updates: int | None = None
    """Updates."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UserError(f"window must be 1 or more, not {self.window}")
        if self.target_return is not None and not math.isfinite(self.target_return):
            raise UserError(f"target_return must be a number, or None, not {self.target_return}")
        limits = {name: getattr(self, name) for name in _LIMITS}
        for name, value in limits.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be positive, or None, not {value}")
        if self.target_return is None and all(value is None for value in limits.values()):
            raise UserError(f"a run needs an end: set target_return or one of {', '.join(limits)}")

    @property
    def has_budget(self) -> bool:
        """Whether it ends for another reason than its target return."""
        return any(getattr(self, name) is not None for name in _LIMITS)

    def progress(self, timesteps: int, episodes: int, seconds: float, updates: int = 0) -> float:
        """Share of the budget that is used up, from 0 to 1; the target return does not count."""
        used = zip((timesteps, episodes, seconds, updates), (getattr(self, name) for name in _LIMITS), strict=True)
        return min(1.0, max((spent / budget for spent, budget in used if budget is not None), default=0.0))


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Policies that are scored while training goes on."""

    eval_every: int | None = 500_000
    """Environment steps, or recorded ones that were learned from, between evaluations, of which the best policy is kept
    in best/; None: none. More where evaluations would take over ``eval_share`` of the time."""
    eval_share: float = 0.1
    """The share of the time that those evaluations may take: Gymnasium's steps are slower than EnvPool's."""
    eval_episodes: int = 100
    """Episodes of an evaluation, flown by the actors on Gymnasium from seeds of their own."""
    sampled: bool = False
    """The policy samples its actions wherever nobody says how it acts: in evaluations, for the target, in /act and in
    the package. Better than greedy where it sees too little to tell states apart. One that acts for a return does so
    anyway where actions are discrete."""

    def __post_init__(self) -> None:
        if self.eval_every is not None and self.eval_every < 1:
            raise UserError(f"eval_every must be 1 or more, or None, not {self.eval_every}")
        if not 0 < self.eval_share <= 1:
            raise UserError(f"eval_share must lie above 0 and be at most 1, not {self.eval_share}")
        if self.eval_episodes < 1:
            raise UserError(f"eval_episodes must be 1 or more, not {self.eval_episodes}")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often a run can be picked up again."""

    checkpoint_seconds: float = 10.0
    """Seconds between checkpoints; more where the storage is so slow that they would take a tenth of the time."""
    keep_checkpoints: int = 3
    """Checkpoints kept; a damaged one is passed over for the one before."""
    upload_seconds: float = 60.0
    """Seconds between two writes of log, policy or checkpoint to an object store (s3://, gs://), which bills each."""
    keep_every: int | None = None
    """Updates between policies that are kept for good, in versions/<n>/; None: none are."""
    checkpoint_memory: bool = False
    """Keep what a replay memory holds in each checkpoint: as many bytes as the log says it takes, each time. Without, a
    run that goes on fills it anew before it learns."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_seconds", "upload_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be zero or more, not {getattr(self, name)}")
        if self.keep_checkpoints < 1:
            raise UserError(f"keep_checkpoints must be 1 or more, not {self.keep_checkpoints}")
        if self.keep_every is not None and self.keep_every < 1:
            raise UserError(f"keep_every must be 1 or more, or None, not {self.keep_every}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run."""

    env: str = "LunarLander-v3"
    """A Gymnasium id; package.module:Id-v0 imports the module first. Id-v0(argument=value) | Wrapper also."""
    seed: int = 0
    """The seed of weights, minibatches, environments and actions."""
    record: bool = False
    """Keep all whole episodes that the actors fly, as a dataset in recorded/."""
    rollout: RolloutConfig = RolloutConfig()
    fleet: FleetConfig = FleetConfig()
    network: NetworkConfig = NetworkConfig()
    algorithm: Algorithm = PPO()
    dataset: DatasetConfig = DatasetConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    placement: PlacementConfig = PlacementConfig()
    stop: StopConfig = StopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        check_seeds(self.seed)
        algorithm, lag, learners = self.algorithm, self.fleet.max_policy_lag, self.placement.learners
        if algorithm.whole_episodes and self.rollout.episodes_per_env is None:
            raise UserError(
                f"{algorithm.whole_episodes}: set episodes_per_env instead of n_steps, or take an advantage with a "
                "critic (critic, gae, vtrace)"
            )
        if algorithm.most_lag is not None and lag > algorithm.most_lag:
            raise UserError(
                f"max_policy_lag {lag} is more than the {algorithm.most_lag} that this {name_of(algorithm)} takes; "
                "V-trace (preset impala) corrects for any, and a replay memory (dqn, sac) takes any"
            )
        if algorithm.batch_size is not None and algorithm.batch_size < learners:
            raise UserError(f"a minibatch of batch_size {algorithm.batch_size} cannot be shared by {learners} learners")

    def require_source(self) -> None:
        """Make sure that there is something to learn from, as the algorithm does.

        Raises:
            UserError: it learns from recordings and there are none, or the other way about; or it would never end.
        """
        if self.algorithm.is_offline != (self.dataset.dataset is not None):
            name = name_of(self.algorithm)
            raise UserError(
                f"{name} learns from recordings: give it --dataset DIRECTORY; python -m learner.record makes one"
                if self.algorithm.is_offline
                else f"{name} learns from what it flies, and a dataset is for bc, cql and dt: leave it out"
            )
        if self.algorithm.is_offline and not self.stop.has_budget and self.evaluation.eval_every is None:
            raise UserError(
                "a run that learns from recordings reaches its target_return in evaluations alone, and there are none: "
                "set eval_every, or a budget such as max_updates"
            )
        if self.record and self.algorithm.is_offline:
            raise UserError("record keeps what a run flies, and one that learns from recordings flies nothing")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data: infinities are strings, see ``json_text``; the algorithm says its name."""
        data: dict[str, Any] = json.loads(json_text(dataclasses.asdict(self)))
        data["algorithm"] = {"name": name_of(self.algorithm), **data["algorithm"]}
        return data

    def flat(self) -> dict[str, Any]:
        """Its fields as ``section.field``, as plain JSON data."""
        flat: dict[str, Any] = {}
        for name, value in self.to_dict().items():
            flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        return flat


def with_algorithm(config: TrainConfig, name: str) -> TrainConfig:
    """The configuration with another algorithm, which keeps the options that it shares with the one before.

    Raises:
        UserError: there is none of that name.
    """
    kind = find_algorithm(name)
    if kind is type(config.algorithm):
        return config
    _require_readable(kind, name)
    return dataclasses.replace(config, algorithm=changed_to(kind, config.algorithm))


@functools.cache
def _require_readable(kind: type[Algorithm], name: str) -> None:
    """Make sure that an algorithm's options can be written to a run's directory and read again.

    Raises:
        UserError: its defaults are impossible, of other types than they are said to be, or no plain data; or an option
            has the name of another.
    """
    own = {option.name for option in dataclasses.fields(kind)} - {option.name for option in dataclasses.fields(PPO)}
    for section in dataclasses.fields(TrainConfig):
        taken = {section.name}
        if section.name != "algorithm" and dataclasses.is_dataclass(section.default):
            taken |= {option.name for option in dataclasses.fields(section.default)}
        if clash := own & taken:
            raise UserError(f"algorithm {name!r}: there is an option {min(clash)} already; call yours otherwise")
    try:
        algorithm = kind()
        again = _changed("algorithm", algorithm, json.loads(json_text(dataclasses.asdict(algorithm))))
    except Exception as error:  # whatever a user's class raises
        words = " ".join(str(error).split())[:300]
        raise UserError(f"algorithm {name!r}: its defaults are no plain options: {words}") from error
    if again != algorithm:
        raise UserError(f"algorithm {name!r}: its defaults are of other types than its options: {again}")


def overlay(base: TrainConfig, changes: dict[str, Any], origin: str) -> TrainConfig:
    """``base`` with the values of a nested dictionary, such as a file holds, put over it.

    Raises:
        UserError: an unknown key, a wrong type or an impossible value; one line that names ``origin`` and the field.
    """
    try:
        changes = modernised(changes)
        base = _renamed(base, changes)
        fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
        for name, value in changes.items():
            if name not in fields:
                raise unknown("field", name, fields)
            fields[name] = _changed(name, fields[name], value)
        return TrainConfig(**fields)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _renamed(base: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """``base`` with the algorithm that the changes name."""
    section = changes.get("algorithm")
    name = section.get("name", name_of(base.algorithm)) if isinstance(section, dict) else name_of(base.algorithm)
    if not isinstance(name, str):
        raise UserError(f"algorithm.name: must be a name, not {name!r}")
    return with_algorithm(base, name)


def _changed(name: str, before: Any, value: Any) -> Any:
    """A field of TrainConfig after a change, which is checked to the letter: no 8.0 for 8, no true for 1."""
    if not dataclasses.is_dataclass(before) or isinstance(before, type):
        return _checked(name, type(before), value)
    if not isinstance(value, dict):
        raise UserError(f"{name} must be an object of fields, not {value!r}")
    section = json.loads(json_text(dataclasses.asdict(before)))
    value = {key: item for key, item in value.items() if (name, key) != ("algorithm", "name")}
    for key in value:
        if key not in section:
            raise unknown(f"field of {name}", key, section)
    section |= value
    for option in dataclasses.fields(before):
        if "float" in str(option.type) and section[option.name] in (*INFINITIES,):
            section[option.name] = INFINITIES[section[option.name]]
    return _checked(name, type(before), section)


def _checked(name: str, kind: Any, value: Any) -> Any:
    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        field = ".".join([name, *(str(part) for part in first["loc"][:1])])
        given = "" if isinstance(first["input"], dict) and not first["loc"] else f", not {first['input']!r}"
        words = cause if isinstance(cause, UserError) else f"{field}: {first['msg']}{given}"
        raise UserError(words) from error


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    """Made once, when it is first needed: that takes longer than all that it then checks."""
    return pydantic.TypeAdapter(kind)


def read_config(path: str | Path, base: TrainConfig) -> TrainConfig:
    """``base`` with the contents of a JSON file, a whole config.json or a part of one, put over it.

    Raises:
        UserError: no such file, not a JSON object, or see ``overlay``.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return read_config_text(text, base, str(path))


def read_config_text(text: bytes, base: TrainConfig, origin: str) -> TrainConfig:
    """``base`` with a JSON object put over it; see ``read_config``."""
    changes = read_json(text, origin)
    if not isinstance(changes, dict):
        raise UserError(f"{origin} must hold a JSON object, not {type(changes).__name__}")
    return overlay(base, changes, origin)
