"""Statistics against cases worked by hand and published ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune_configs.statistics import (
    interquartile_mean,
    interval,
    mean_curve,
    performance_profile,
    probability_of_improvement,
)


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    assert interquartile_mean(np.arange(1, 9)) == 4.5  # 3, 4, 5, 6
    assert interquartile_mean(np.array([[-1000.0, 1, 2], [3, 4, 1000]])) == 2.5  # over seeds and episodes alike


def test_an_interval_resamples_training_runs_not_episodes() -> None:
    """Two seeds, 0 and 10: a resample is one of (0, 0), (0, 10), (10, 0), (10, 10), whatever the number of episodes."""
    scores = np.repeat([[0.0], [10.0]], 1000, axis=1)
    assert interval(scores, interquartile_mean) == (0.0, 10.0)
    assert interval(np.full((4, 3), 7.0), interquartile_mean) == (7.0, 7.0)


def test_an_interval_of_the_mean_has_the_width_of_the_normal_one() -> None:
    scores = np.random.default_rng(0).normal(size=(400, 1))
    low, high = interval(scores, lambda rows: float(rows.mean()))
    half = 1.96 * scores.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.02)


def test_one_seed_has_no_interval() -> None:
    assert all(math.isnan(end) for end in interval(np.ones((1, 100)), interquartile_mean))


def test_probability_of_improvement_is_mann_and_whitneys() -> None:
    """Aesop's race, as textbooks tell it: THHHHHTTTTTH in order of arrival; the tortoises' U is 11 of 36."""
    order = "THHHHHTTTTTH"
    speeds = {runner: np.array([-i for i, who in enumerate(order) if who == runner]) for runner in "TH"}
    assert probability_of_improvement(speeds["T"], speeds["H"]) == pytest.approx(11 / 36)
    assert probability_of_improvement(speeds["H"], speeds["T"]) == pytest.approx(25 / 36)


def test_ties_are_half_an_improvement() -> None:
    assert probability_of_improvement(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(3.5 / 4)


def test_a_performance_profile_counts_episodes_at_or_above() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    share, low, high = performance_profile(scores, np.array([-1.0, 0.5, 2.0, 2.5, 9.0]))
    assert share.tolist() == [1, 7 / 8, 6 / 8, 1 / 8, 0]
    assert low.tolist() == [1, 3 / 4, 1 / 2, 0, 0]
    assert high.tolist() == [1, 1, 1, 1 / 4, 0]


def test_a_mean_curve_interpolates_as_far_as_all_runs_reach() -> None:
    first = np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0])
    second = np.array([5.0, 15.0]), np.array([1.0, 1.0])
    x, mean, low, high = mean_curve([first, second], points=3)
    assert x.tolist() == [5, 10, 15]
    assert mean.tolist() == [3, 5.5, 8]
    assert low.tolist() == [1, 1, 1]
    assert high.tolist() == [5, 10, 15]
