"""What Prometheus is told of a run, through Ray's own metrics; cluster/grafana shows it.

Ray puts ``ray_`` before these names. Nothing is listening on most laptops, and it costs some microseconds an update.
"""

from __future__ import annotations

import math
import time

from ray.util.metrics import Counter, Gauge

from learner.run.callback import Callback
from learner.run.ray_session import metric_tag
from learner.run.result import Result
from learner.run.trainer import Trainer

_SECONDS = 1.0
"""Seconds between two accounts."""
COUNTERS = {
    "touchdown_episodes_total": "Episodes finished.",
    "touchdown_updates_total": "Updates of the policy.",
    "touchdown_batch_bytes_total": "Bytes of experience that the learner was given.",
    "touchdown_learner_wait_seconds_total": "Seconds that the learner waited for batches.",
    "touchdown_learner_busy_seconds_total": "Seconds that the learner spent on updates.",
    "touchdown_actor_restarts_total": "Actors replaced.",
    "touchdown_learner_restarts_total": "Learners that died and came back from a checkpoint.",
    "touchdown_dropped_rollouts_total": "Rollouts that came too late to learn from.",
    "touchdown_storage_failures_total": "Writes to the run directory that failed and were tried again.",
}
GAUGES = {
    "touchdown_return": "Mean return of the last episodes.",
    "touchdown_best_return": "Best mean return so far.",
    "touchdown_evaluation_return": "Mean return of the last policy that was evaluated beside training.",
    "touchdown_policy_lag": "Versions between the policy that flew a batch and the one that learns from it.",
    "touchdown_actors": "Actors that fly or could.",
    "touchdown_unsaved_seconds": "Age of the newest checkpoint that is safe.",
}


_IN_ALL = {
    "touchdown_episodes_total": "time/episodes",
    "touchdown_updates_total": "train/n_updates",
    "touchdown_actor_restarts_total": "rollout/actor_restarts",
    "touchdown_learner_restarts_total": "rollout/learner_restarts",
    "touchdown_dropped_rollouts_total": "rollout/dropped",
}
_BY_UPDATE = {
    "touchdown_batch_bytes_total": "rollout/batch_bytes",
    "touchdown_learner_wait_seconds_total": "time/learner_wait",
    "touchdown_learner_busy_seconds_total": "time/learner_busy",
}
_NOW = {
    "touchdown_return": "rollout/ep_rew_mean",
    "touchdown_best_return": "rollout/best_ep_rew_mean",
    "touchdown_policy_lag": "rollout/policy_lag",
    "touchdown_actors": "rollout/actors",
}


class Telemetry(Callback):
    """Tells Ray's metrics of a run, each with the tag ``run``; steps by the actor that flew them."""

    def __init__(self) -> None:
        self._counters = {name: Counter(name, text, ("run",)) for name, text in COUNTERS.items()}
        self._gauges = {name: Gauge(name, text, ("run",)) for name, text in GAUGES.items()}
        self._steps = Counter("touchdown_steps_total", "Environment steps flown, by actor.", ("run", "actor"))
        self._sums: dict[str, float] = dict.fromkeys(_BY_UPDATE, 0.0)
        """Totals of the figures that rows give by update."""
        self._row: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._next = 0.0

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Add the update up, and tell Ray's metrics at most once a second."""
        for name, figure in _BY_UPDATE.items():
            self._sums[name] += metrics[figure]
        self._row = metrics
        if time.monotonic() >= self._next:
            self._tell(trainer)

    def on_wait(self, trainer: Trainer) -> None:
        """Go on telling while there are no updates: that nobody flies, and how old the checkpoint is."""
        if self._row and trainer.fleet and time.monotonic() >= self._next:
            self._row = {**self._row, "rollout/actors": trainer.fleet.size}
            self._tell(trainer)

    def on_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Tell Ray's metrics what a policy scored beside training."""
        self._gauges["touchdown_evaluation_return"].set(metrics["eval/mean_reward"], _tags(trainer))

    def on_end(self, trainer: Trainer, _result: Result) -> None:
        """Tell Ray's metrics how the run ended."""
        if self._row:
            self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        assert trainer.fleet is not None
        self._next = time.monotonic() + _SECONDS
        tags = _tags(trainer)
        totals = {name: self._row[figure] for name, figure in _IN_ALL.items()}
        totals["touchdown_storage_failures_total"] = trainer.recorder.failures
        for name, total in (totals | self._sums).items():
            self._add(self._counters[name], name, total, tags)
        for index, steps in trainer.fleet.flown.items():
            actor = str(index)
            self._add(self._steps, actor, steps, tags | {"actor": actor})
        gauges = {name: self._row[figure] for name, figure in _NOW.items()}
        gauges["touchdown_unsaved_seconds"] = trainer.recorder.unsaved_seconds
        for name, value in gauges.items():
            if math.isfinite(value):  # not before the first episode ends
                self._gauges[name].set(value, tags)

    def _add(self, counter: Counter, key: str, total: float, tags: dict[str, str]) -> None:
        change = total - self._told.get(key, 0)
        if change > 0:  # a learner that went back to a checkpoint counts again what it had counted
            counter.inc(change, tags)
            self._told[key] = total


def _tags(trainer: Trainer) -> dict[str, str]:
    return {"run": metric_tag(str(trainer.directory).rstrip("/").rpartition("/")[2])}
