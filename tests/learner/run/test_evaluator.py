"""Which policies are evaluated beside training, and how much of the time that may take."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.score import Score
from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.evaluator import Evaluator


class Actors:
    """A fleet of two that flies scores, five seconds an actor each."""

    size = 2
    is_evaluating = False

    def __init__(self) -> None:
        self.scores: list[Score] = []

    def evaluate(self, score: Score) -> None:
        while score.has_parts:
            part = score.next_part()
            count = len(part)
            score.add(part, np.ones(count), np.full(count, 7), np.zeros(count, bool), seconds=count / 10)
        self.scores.append(score)


def considered(evaluator: Evaluator, actors: Any, counters: Counters, version: int) -> bool:
    """Whether a policy was evaluated; its score is judged at once."""
    if not evaluator.consider(actors, "policy", version, counters):
        return False
    evaluator.judge(actors.scores[-1], counters)
    return True


def evaluated_versions(actors: Actors, updates: int, **evaluation: float) -> list[int]:
    """Which of as many versions are evaluated, where an update takes a second and a thousand steps."""
    evaluator = Evaluator(overlay(TrainConfig(), {"evaluation": evaluation}, "test"))
    counters = Counters()
    found = []
    for version in range(1, updates + 1):
        counters.total_timesteps, counters.seconds = 1_000 * version, float(version)
        if considered(evaluator, actors, counters, version):
            found.append(version)
    return found


def test_evaluations_take_a_tenth_of_the_time_at_most() -> None:
    actors = Actors()
    assert evaluated_versions(actors, 200, eval_every=1_000, eval_episodes=100) == [1, 46, 91, 136, 181]
    assert actors.scores[0].seconds == 5
    assert evaluated_versions(Actors(), 20, eval_every=1_000, eval_episodes=100, eval_share=0.5) == [1, 6, 11, 16]


def test_evaluations_that_take_no_time_come_at_their_intervals() -> None:
    assert evaluated_versions(Actors(), 20, eval_every=5_000, eval_episodes=1) == [5, 10, 15, 20]
