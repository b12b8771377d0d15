"""What an experiment came to: figures for each loss, and for each pair, from the files that its trials left."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.environments import describe
from actors.episode import Array
from learner.keeping.metrics_log import read_rows
from learner.run.statistics import interquartile_mean, interval, probability_of_improvement
from tune_configs.experiment import Experiment, Trial
from tune_configs.view import view_of


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished trial."""

    trial: Trial
    outcome: dict[str, Any]
    rows: list[dict[str, float]]
    """Of its metrics.jsonl."""

    @property
    def evaluation(self) -> Array:
        """Returns of the final evaluation, [episodes]."""
        return np.asarray(self.outcome["evaluation_returns"])

    def first_reaching(self, threshold: float) -> dict[str, float] | None:
        """The first row whose running mean, over a full window, is at the threshold or above; or whose evaluation."""
        column = view_of([self.trial]).best
        best = ((row.get(column, -math.inf), row) for row in self.rows)
        return next((row for value, row in best if value >= threshold), None)


def finished_runs(trials: Sequence[Trial]) -> list[Run]:
    """Those that have an outcome."""
    runs = []
    for trial in trials:
        if "outcome.json" in trial.storage.names():
            outcome = json.loads(trial.storage.read("outcome.json"))
            runs.append(Run(trial, outcome, read_rows(trial.storage)))
    return runs


def failures(trials: Sequence[Trial]) -> dict[str, str]:
    """Why trials failed, by their names."""
    return {
        trial.name: trial.storage.read("failure.txt").decode().strip()
        for trial in trials
        if "failure.txt" in trial.storage.names()
    }


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of each loss or peer, in the order of the trials."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.trial.label, []).append(run)
    return groups


def episodes_of(runs: Sequence[Run]) -> Array:
    """Returns of the final evaluations, [runs, episodes]."""
    return np.stack([run.evaluation for run in runs])


def scores_of(runs: Sequence[Run]) -> Array:
    """Each run's score, the mean of its final evaluation: [runs, environments], of which an experiment has one."""
    scores: Array = episodes_of(runs).mean(1, keepdims=True)
    return scores


def summarise(
    experiment: Experiment, trials: Sequence[Trial], recorded: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The contents of summary.json. Whatever depends on the clock is under ``times``.

    With recordings some of the rest does, too: the best of the evaluations beside training, which are flown when there
    is time, and how soon one reached the threshold.

    Args:
        experiment: what was compared.
        trials: its runs.
        recorded: what the dataset holds that they learned from.
    """
    runs = finished_runs(trials)
    groups = by_label(runs)
    threshold = experiment.threshold
    if threshold is None:
        threshold = describe(experiment.env).reward_threshold
    scores = {label: scores_of(group) for label, group in groups.items()}
    return {
        "experiment": dataclasses.asdict(experiment),
        "recorded": recorded,
        "threshold": threshold,
        "losses": {label: _figures(group, threshold) for label, group in groups.items()},
        "probability_of_improvement": _improvements(scores),
        "failed": failures(trials),
        "unfinished": [trial.name for trial in trials if trial.name not in {run.trial.name for run in runs}],
        "times": {label: _times(group, threshold) for label, group in groups.items()},
    }


def _figures(runs: Sequence[Run], threshold: float | None) -> dict[str, Any]:
    scores, episodes_flown = scores_of(runs), episodes_of(runs)
    reached = [run.first_reaching(threshold) for run in runs] if threshold is not None else []
    view = view_of([run.trial for run in runs])
    counted = [row[view.costs[view.counted][0]] for row in reached if row]
    return {
        "seeds": len(runs),
        "final_mean_return": _mean(run.outcome["final_mean_return"] for run in runs),
        "best_mean_return": _mean(run.outcome["best_mean_return"] for run in runs),
        "best_mean_return_of_each_seed": [run.outcome["best_mean_return"] for run in runs],
        "score_of_each_seed": scores[:, 0].tolist(),
        "score_iqm": float(interquartile_mean(scores)),
        "score_iqm_interval_95": _known(interval(scores)),
        "evaluation_mean": float(episodes_flown.mean()),
        "evaluation_std": float(episodes_flown.std()),
        "episodes": sum(run.outcome["episodes"] for run in runs),
        "steps": sum(run.outcome["steps"] for run in runs),
        "seeds_over_threshold": len(counted),
        f"{view.counted}_to_threshold": statistics.median(counted) if counted else None,
    }


def _times(runs: Sequence[Run], threshold: float | None) -> dict[str, Any]:
    seconds = sum(run.outcome["seconds"] for run in runs)
    reached = [run.first_reaching(threshold) for run in runs] if threshold is not None else []
    to_threshold = [row["time/time_elapsed"] for row in reached if row]
    return {
        "seconds": seconds,
        "steps_per_second": sum(run.outcome["steps"] for run in runs) / max(seconds, 1e-9),
        "seconds_to_threshold": statistics.median(to_threshold) if to_threshold else None,
    }


def _improvements(scores: dict[str, Array]) -> dict[str, dict[str, Any]]:
    """The probability of improvement of every loss over every other; one direction is the other's mirror image."""
    found: dict[str, dict[str, Any]] = {label: {} for label in scores}
    for ours, theirs in itertools.combinations(scores, 2):
        chance, low, high = probability_of_improvement(scores[ours], scores[theirs])
        found[ours][theirs] = {"probability": chance, "interval_95": _known((low, high))}
        found[theirs][ours] = {"probability": 1 - chance, "interval_95": _known((1 - high, 1 - low))}
    return found


def _known(interval: Sequence[float]) -> list[float] | None:
    return None if any(map(math.isnan, interval)) else list(interval)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
