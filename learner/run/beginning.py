"""What a run begins with: all that can be checked is, and what it goes on from is read, before anything starts."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from actors.check_env import try_out
from actors.environments import EnvironmentInfo, describe
from actors.errors import UserError
from actors.pictures import pictures_in
from actors.registration import registration
from actors.vectors import require_envpool
from learner.keeping.checkpoint import has_checkpoint, load_checkpoint
from learner.keeping.policies import find_policy
from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.initial import Initial
from learner.run.result import Result
from learner.run.run_directory import RunDirectory
from learner.run.run_recorder import Checkpoint

if TYPE_CHECKING:
    from learner.dataset.dataset import Dataset

log = logging.getLogger("touchdown")

_LARGE = 50_000
"""Bytes of a picture that is seldom meant: Atari's is 210×160×3 as it comes, Doom's 240×320×3."""


@dataclasses.dataclass(frozen=True)
class Beginning:
    """A run that can begin, or go on."""

    config: TrainConfig
    """What to train; its environment has its whole name."""
    environment: EnvironmentInfo
    directory: RunDirectory
    dataset: Dataset | None
    """The recorded episodes that are learned from; None: actors fly."""
    last: Checkpoint | None
    """What it goes on from; None: nothing has happened yet."""

    @property
    def counters(self) -> Counters:
        """How far it is."""
        return Counters(**self.last.counters) if self.last else Counters()

    def ended(self) -> Result | None:
        """What the run came to, if there is nothing left to do."""
        try:
            record = self.directory.result() if self.last else None
        except UserError as error:
            log.warning("going on from the checkpoint, since what the run came to is not known: %s", error)
            return None
        if not (record and record.get("has_ended") and self.directory.config().stop == self.config.stop):
            return None
        policy = find_policy(str(self.directory))
        reached = bool(record.get("target_reached"))
        return Result(str(record.get("reason")), policy, self.directory, self.config, self.counters, reached)


def begin(config: TrainConfig, run_dir: str | Path, resume: bool, initial: Initial | None) -> Beginning:
    """Check a run, new or one that goes on; arguments are Trainer's.

    Raises:
        UserError: the environment, the algorithm or the run directory cannot be used, or is that of a run of another
            environment or network.
    """
    config.require_source()
    environment = describe(config.env)
    given, config = config.env, dataclasses.replace(config, env=environment.env_id)
    if config.optimisation.schedule == "linear" and not config.stop.has_budget:
        raise UserError(
            "schedule 'linear' falls to zero at the end of a budget, and target_return is none: "
            "set total_timesteps, max_episodes, max_seconds or max_updates too, or schedule 'constant'"
        )
    try_out(config.env)
    for _, picture in pictures_in(environment.observation):
        if picture.inputs > _LARGE:
            log.warning(
                "pictures of %s, %s bytes a step, take long to learn from: '%s | Screen(height=30, width=45)' is gray "
                "and small",
                "×".join(map(str, picture.shape)),
                f"{picture.inputs:,}",
                config.env,
            )
    registration(config.env)  # says now if the actors cannot have it
    if config.rollout.backend == "envpool":
        require_envpool(environment)
    if initial:
        initial.require_fit(config, environment)
    again = overlay(TrainConfig(), config.to_dict(), "this configuration, read again").algorithm
    if again != config.algorithm:
        raise UserError(f"{config.algorithm} would be read again as {again}: its options must be plain data")
    directory = RunDirectory(run_dir)
    dataset = config.dataset.open_for(environment) if config.dataset.dataset else None
    last = None
    if resume:
        _require_same_agent(directory, config, given)
        last = _load(directory, config, dataset)
    else:
        directory.require_free()
    return Beginning(config, environment, directory, dataset, last)


def _require_same_agent(directory: RunDirectory, config: TrainConfig, env_id: str) -> None:
    """Check that what goes on is what was begun; ``env_id`` is as the caller wrote it, maybe without a version."""
    before = directory.config()
    if before.env not in (env_id, config.env):
        raise UserError(f"the run in {directory} is one of {before.env}: it cannot go on with {env_id}")
    if before.network != config.network:
        raise UserError(f"the run in {directory} goes on with its own {before.network}")


def _load(directory: RunDirectory, config: TrainConfig, dataset: Dataset | None) -> Checkpoint | None:
    if not has_checkpoint(directory.checkpoints):
        log.warning("%s holds no checkpoint yet: beginning again", directory)
        return None
    state, noted = load_checkpoint(directory.checkpoints)
    if dataset:
        dataset.require_same(state["recorded"])
    counters = Counters(**noted)
    _bend_schedule(config, counters)
    return Checkpoint(int(state["version"]), state, dataclasses.asdict(counters))


def _bend_schedule(config: TrainConfig, counters: Counters) -> None:
    """Where the budget has changed: from the learning rate of the last update straight to 0 at the new end."""
    used = config.stop.progress(*counters.spent)
    if counters.budget_used in (None, used) or used >= 1:
        return
    counters.annealing = counters.progress_remaining / (1 - used)
    if config.optimisation.schedule == "linear":
        rate = config.optimisation.learning_rate * counters.progress_remaining
        log.warning(
            "the budget has changed: the learning rate falls from %.2g, where it was, to 0 at the new end", rate
        )
