"""One trial, as Ray Tune runs it: train, evaluate, write down what came of it.

Tune keeps a trial's process and placement group for the next trial of the same resources, and so do we with the learner
and the actors in it: starting them is paid once for each place that trials run in, not once a trial.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune import PlacementGroupFactory

from actors.errors import EnvironmentFault, NonFiniteError, UserError
from actors.evaluation import fly_episodes
from actors.policy import Policy
from learner.keeping.background_writer import PATIENCE, BackgroundWriter
from learner.keeping.checkpoint import has_checkpoint
from learner.keeping.metrics_log import read_rows
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.run_directory import RunDirectory
from learner.run.spares import Spares
from learner.run.telemetry import Telemetry
from learner.run.trainer import Trainer
from tune_configs.experiment import Trial, train_config
from tune_configs.peers.registry import train_peer
from tune_configs.peers.run import PeerRun

EVALUATION_SEED = 500_000
"""First seed of the final evaluation: training derives none as low."""

CPUS_PER_ACTOR = 0.5
CPUS_PER_LEARNER = 0.5
"""A learner and its actor mostly take turns, so that one core carries both: two cores fly two trials at once."""

_REPORT_SECONDS = 1.0
_SPARES = Spares()
"""Of this process, for its next trial."""


def placement(actors: int, gpu_share: float) -> PlacementGroupFactory:
    """What a trial needs: nothing for the process that leads it, the learner's share, and the actors."""
    learner = {"CPU": CPUS_PER_LEARNER, **({"GPU": gpu_share} if gpu_share else {})}
    return PlacementGroupFactory([{}, learner, *({"CPU": CPUS_PER_ACTOR} for _ in range(actors))])


class ReportToTune(Callback):
    """Passes on, once a second, what the table shows and schedulers decide by."""

    def __init__(self) -> None:
        self._next = 0.0
        self._evaluated: dict[str, float] = {}

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Report the update to Tune, at most once a second."""
        self.report(trainer.config, trainer.counters, metrics)

    def on_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Report what a policy scored: of a run that flies nothing there is no other return."""
        self._evaluated = {"ep_rew_mean": metrics["eval/mean_reward"]}
        self.report(trainer.config, trainer.counters, metrics)

    def report(self, config: TrainConfig, counters: Counters, metrics: dict[str, float]) -> None:
        """Report a row, unless the last is too recent; always the one that ends the run."""
        progress = config.stop.progress(*counters.spent)
        if time.monotonic() < self._next and progress < 1:
            return
        self._next = time.monotonic() + _REPORT_SECONDS
        row = {name.partition("/")[2]: metrics[name] for name in _REPORTED if name in metrics}
        row |= {"updates": counters.updates, "progress": progress}
        tune.report({"ep_rew_mean": float("nan"), **row, **self._evaluated})


_REPORTED = ("rollout/ep_rew_mean", "time/total_timesteps", "time/episodes", "time/time_elapsed", "time/fps")


def run_trial(settings: dict[str, Any]) -> None:
    """Tune's function trainable: one trial of a comparison, from where it stopped if it was interrupted.

    What a user or an environment did wrong is written to ``failure.txt`` and does not raise: trying again would not
    help, as it does when a process or a node is lost.
    """
    trial = Trial(**settings["trial"])
    try:
        policy, counters = _train(trial, settings["gpu_share"])
        outcome = _outcome(trial, policy, counters)
    except (UserError, NonFiniteError, EnvironmentFault, RayTaskError) as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RayError) and not isinstance(cause, RayTaskError):  # a process was lost after all
            raise
        text = f"{getattr(error, 'details', '')}{error}\n"
        _write(trial, lambda: trial.storage.write("failure.txt", text.encode()))
        tune.report({"ep_rew_mean": float("nan"), "progress": 1.0, "failure": _last_line(error)})
        return
    _write(trial, lambda: trial.storage.write("outcome.json", f"{json.dumps(outcome)}\n".encode()))


def _train(trial: Trial, gpu_share: float) -> tuple[Policy, Counters]:
    reporter = ReportToTune()
    directory = RunDirectory(trial.run_dir)
    resume = has_checkpoint(directory.checkpoints)
    stored = directory.config() if resume else train_config(trial)
    device = {"placement": {"device": train_config(trial).placement.device}}  # an interrupted run may go on on a GPU
    config = with_resources(overlay(stored, device, trial.name), gpu_share)
    if not resume:  # what a run leaves that stopped before its first checkpoint is worth nothing
        for name in directory.storage.names():
            directory.storage.remove(name)
    if trial.is_peer:
        directory.create(config, trial.label, trial.command)
        run = PeerRun(config, directory.storage, lambda *row: reporter.report(config, *row))
        policy = train_peer(trial.label, run)
        _write(trial, lambda: directory.write_policy(policy))
        return policy, run.counters
    result = Trainer(config, trial.run_dir, trial.label, resume, [reporter, Telemetry()], _SPARES, trial.command).run()
    return result.policy, result.counters


def _write(trial: Trial, write: Callable[[], None]) -> None:
    """Write what came of a trial; storage that is away for a minute must not cost a peer its whole run."""
    writer = BackgroundWriter(trial.run_dir)
    try:
        writer.submit("outcome", write)
        writer.flush(PATIENCE)
    finally:
        writer.close()


def with_resources(config: TrainConfig, gpu_share: float) -> TrainConfig:
    """A configuration whose processes fit into ``placement``; without a GPU for it, the learner takes none."""
    placed = {"learners": 1, "threads": 1, **({"gpu_share": gpu_share} if gpu_share else {"device": "cpu"})}
    return overlay(config, {"fleet": {"cpus_per_actor": CPUS_PER_ACTOR}, "placement": placed}, "trial")


def _outcome(trial: Trial, policy: Policy, counters: Counters) -> dict[str, Any]:
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + trial.evaluation_episodes)
    limit = train_config(trial).rollout.max_episode_steps
    greedy = not policy.spec.is_sampled
    returns, lengths, cut = fly_episodes(policy, seeds, greedy, env_id=trial.config["env"], max_episode_steps=limit)
    final, best = counters.mean_return, counters.best_mean_return
    if trial.is_recorded:
        final, best = _last(read_rows(trial.storage), "eval/mean_reward"), counters.best_evaluation
    return {
        "label": trial.label,
        "seed": trial.seed,
        "final_mean_return": final if math.isfinite(final) else None,
        "best_mean_return": best if math.isfinite(best) else None,
        "episodes": counters.episodes,
        "steps": counters.total_timesteps,
        "seconds": counters.seconds,
        "evaluation_returns": returns.tolist(),
        "evaluation_lengths": lengths.tolist(),
        "evaluation_truncated": int(cut.sum()),
    }


def _last(rows: Sequence[dict[str, float]], column: str) -> float:
    return next((row[column] for row in reversed(rows) if column in row), math.nan)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
