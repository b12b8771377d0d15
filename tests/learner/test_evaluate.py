"""What is said of a set of episode returns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.evaluate import summarise
from tests.learner import property_test


def test_eight_episodes_by_hand() -> None:
    # Without the lower and upper quarter: 20, 30, 40, 50, whose mean is 35.
    score = summarise(np.array([50.0, -100, 40, 10, 30, 20, 100, 300]), reward_threshold=40)
    assert score["iqm_reward"] == 35
    assert score["mean_reward"] == 56.25
    assert score["std_reward"] == pytest.approx(math.sqrt(11273.4375))
    assert score["mean_minus_std"] == pytest.approx(56.25 - score["std_reward"])
    assert score["median_reward"] == 35
    assert (score["worst_reward"], score["best_reward"]) == (-100, 300)
    assert (score["reward_threshold"], score["share_over_threshold"]) == (40, 0.5)  # 40 itself counts


def test_standard_deviation_is_the_populations() -> None:
    """As Stable-Baselines3 and the course's leaderboard count it."""
    assert summarise(np.array([1.0, 3.0]), None)["std_reward"] == 1


def test_no_threshold() -> None:
    score = summarise(np.array([1.0, 2, 3]), None)
    assert score["reward_threshold"] is score["share_over_threshold"] is None


@pytest.mark.parametrize("returns", [[7.0], [7.0] * 20], ids=["one episode", "all the same"])
def test_nothing_to_be_uncertain_about(returns: list[float]) -> None:
    score = summarise(np.array(returns), reward_threshold=200)
    assert score["iqm_interval_95"] == [7, 7]
    assert score["mean_reward"] == score["iqm_reward"] == score["median_reward"] == 7
    assert score["std_reward"] == score["share_over_threshold"] == 0


def test_one_outlier_among_equals() -> None:
    score = summarise(np.array([7.0] * 99 + [8.0]), None)
    assert score["iqm_interval_95"] == [7, 7]


@property_test
@given(count=st.integers(4, 100), scale=st.sampled_from([1e-3, 1.0, 300.0]), seed=st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_interquartile_mean(count: int, scale: float, seed: int) -> None:
    returns = np.random.default_rng(seed).normal(scale=scale, size=count)
    score = summarise(returns, None)
    low, high = score["iqm_interval_95"]
    assert low < score["iqm_reward"] < high
    rounding = 1e-12 * scale
    assert returns.min() - rounding <= low
    assert high <= returns.max() + rounding


def test_more_episodes_narrow_the_interval() -> None:
    def width(count: int) -> float:
        low, high = summarise(np.random.default_rng(0).normal(size=count), None)["iqm_interval_95"]
        return float(high - low)

    # Of the mean of a normal distribution's middle half the standard error is about 1.09 σ / √n.
    assert width(400) == pytest.approx(2 * 1.96 * 1.09 / 20, rel=0.3)
    assert width(400) < width(25)


def test_it_is_the_same_every_time() -> None:
    returns = np.random.default_rng(0).normal(size=30)
    assert summarise(returns, 0.0) == summarise(returns.copy(), 0.0)
