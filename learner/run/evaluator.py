"""Evaluator: which policies are scored while training goes on, which is the best, and which reaches the target."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from actors.fleet import Fleet
from actors.score import Score
from learner.run.config import TrainConfig
from learner.run.counters import Counters

_TRYING_SHARE = 0.5
"""The share of all steps that evaluations which may end the run may take, at most."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What an evaluation came to."""

    figures: dict[str, float]
    """The score by its names in the log; of the episodes that were flown, if the rest was given up."""
    is_best: bool
    """No policy before it scored more."""
    reaches_target: bool
    """The run may hand it over, and end."""


class Evaluator:
    """Has the newest policy evaluated at intervals, and whenever training returns say that the target may be reached.

    Training returns alone do not: they are of older policies, which sample their actions, and one large step can break
    the policy that comes after them.

    Args:
        config: of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._seed, self._config, self._target = config.seed, config.evaluation, config.stop.target_return
        self._window = config.stop.window
        self._tried = -1
        self._flown = 0
        """Steps that the last evaluation took."""
        self._rests_until = 0.0
        """Seconds of the run before which no other is due."""

    def consider(self, fleet: Fleet, policy: Any, version: int, counters: Counters, last: bool = False) -> bool:
        """Have a policy evaluated if it is time; answers whether one is being evaluated.

        Args:
            fleet: who flies.
            policy: reference to the newest policy.
            version: of that policy.
            counters: how far the run is.
            last: the run is about to end with this policy.
        """
        if fleet.is_evaluating or version == self._tried:
            return fleet.is_evaluating
        tries, due = self._may_reach(counters), self._is_due(counters)
        if last:
            tries, due = self._target is not None, math.isfinite(counters.best_evaluation)
        if not (tries or due):
            return False
        self._tried, counters.evaluated_at = version, counters.total_timesteps
        first = _first_seed(self._seed, version)
        needed = -math.inf if due or self._target is None else self._target
        fleet.evaluate(Score(policy, version, range(first, first + self._config.eval_episodes), fleet.size, needed))
        return True

    def judge(self, score: Score, counters: Counters) -> Verdict:
        """What a policy's score says. ``counters`` learn of the best; one that was given up is never that."""
        returns, lengths, _ = score.flown
        self._flown = int(lengths.sum())
        self._rests_until = counters.seconds + score.seconds * (1 / self._config.eval_share - 1)
        mean = float(returns.mean())
        is_best = score.is_complete and mean > counters.best_evaluation
        if is_best:
            counters.best_evaluation = mean
        figures = {
            "eval/mean_reward": mean,
            "eval/std_reward": float(returns.std()),
            "eval/worst_reward": float(returns.min()),
            "eval/best_mean_reward": counters.best_evaluation,
            "eval/mean_ep_length": float(lengths.mean()),
            "eval/episodes": len(returns),
            "eval/policy_version": score.version,
        }
        return Verdict(figures, is_best, self._target is not None and score.is_complete and mean >= self._target)

    def _may_reach(self, counters: Counters) -> bool:
        if self._target is None or len(counters.recent_returns) < self._window:
            return False
        pause = self._flown * (1 / _TRYING_SHARE - 1)
        return counters.mean_return >= self._target and counters.total_timesteps - counters.evaluated_at >= pause

    def _is_due(self, counters: Counters) -> bool:
        every = self._config.eval_every
        if every is None:
            return False
        return counters.total_timesteps - counters.evaluated_at >= every and counters.seconds >= self._rests_until


def _first_seed(seed: int, version: int) -> int:
    """The first seed of a version's evaluation: far from other versions' seeds, and from those of final scores."""
    return 2**30 + int(np.random.SeedSequence((seed, version)).generate_state(1)[0] >> 3)
