"""What a run came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.actor import RolloutReport
from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.result import Result
from learner.run.run_directory import RunDirectory
from tests.actors.examples import stubborn_policy

WINDOW = 20


def flown(returns: Any, steps: int = 100) -> RolloutReport:
    returns = np.asarray(returns, np.float64)
    return RolloutReport(steps, 0, 0, returns, np.full(len(returns), 5), 0.1)


def result(counters: Counters, reached: bool = False, **stop: Any) -> Result:
    config = overlay(TrainConfig(env="CartPole-v1"), {"stop": {"window": WINDOW, **stop}}, "test")
    policy = stubborn_policy("CartPole-v1", 0)
    return Result("budget used up", policy, RunDirectory(Path("run")), config, counters, reached)


def counted(*returns: Any) -> Counters:
    counters = Counters()
    for some in returns:
        counters.add(flown(some), WINDOW)
    return counters


def test_a_run_improved_if_a_window_was_clearly_better_than_the_first() -> None:
    noise = np.random.default_rng(0).standard_normal((40, WINDOW))
    assert counted(noise[0], *noise[1:] + 2).improved
    assert counted(*noise).improved is False, "the best of many windows is better than the first by chance"
    assert counted(noise[0], *noise[1:] - 2).improved is False
    assert counted(*[[-200.0] * WINDOW] * 3).improved is False
    assert counted(noise[0], noise[1][:5]).improved is None, "there was one window"
    assert counted(noise[0][:5]).improved is None
    before = Counters(recent_returns=[0.0] * WINDOW, episodes=WINDOW * 10)  # of a checkpoint that kept no first window
    before.add(flown(noise[0]), WINDOW)
    assert before.improved is None


def test_what_to_try_is_said_when_a_run_that_never_improved_has_ended() -> None:
    flat = counted(*[[-200.0] * WINDOW] * 3)
    ended = result(flat, total_timesteps=300)
    assert ended.has_ended
    assert ended.hint
    assert "never rose above those of the first 20 episodes (mean -200.0)" in ended.hint
    assert "python -m actors.check_env CartPole-v1" in ended.hint
    assert result(flat, total_timesteps=3000).hint is None, "it was stopped, and may yet"
    assert result(counted([0.0] * WINDOW, [9.0] * WINDOW), total_timesteps=200).hint is None


@pytest.mark.parametrize(
    ("target", "reached", "outcome"),
    [
        (None, False, "budget used up"),
        (255.0, False, "budget used up, short of the target return 255"),
        (255.0, True, "budget used up"),
    ],
)
def test_a_target_that_was_missed_is_named(target: float | None, reached: bool, outcome: str) -> None:
    ended = result(counted([1.0]), reached, target_return=target)
    assert ended.outcome == outcome
    assert ended.missed == ("short" in outcome)
    assert ended.has_ended == reached
    assert ended.record()["target_reached"] == reached
    assert ended.record()["best_mean_return"] is None, "there was no full window"
