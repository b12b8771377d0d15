"""Statistics against cases worked by hand and published ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learner.run.statistics import (
    COVERAGE,
    interquartile_mean,
    interval,
    mean_curve,
    probability_of_improvement,
    share_of_episodes,
)


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    assert interquartile_mean(np.arange(1, 9)) == 4.5  # 3, 4, 5, 6
    assert interquartile_mean(np.array([[-1000.0, 1, 2], [3, 4, 1000]])) == 2.5  # over runs and environments alike
    assert interquartile_mean(np.array([[1.0], [2.0], [9.0]])) == 4  # nothing to trim


def test_an_interval_resamples_runs() -> None:
    """Two runs, 0 and 10: a resample is one of (0, 0), (0, 10), (10, 0), (10, 10)."""
    assert interval(np.array([[0.0], [10.0]])) == (0.0, 10.0)
    assert interval(np.full((4, 1), 7.0)) == (7.0, 7.0)


def test_an_interval_resamples_each_environment_on_its_own() -> None:
    """Runs of one environment score 0 and of the other 10, with hardly any noise: stratified, all means are 5."""
    low, high = interval(np.array([[0.0, 10.0], [0.1, 10.1], [0.0, 10.0], [0.1, 10.1]]))
    assert 4.9 < low < high < 5.2


def test_an_interval_has_the_width_of_the_normal_one() -> None:
    """Of the mean of a normal distribution's middle half the standard error is about 1.09 σ / √n."""
    scores = np.random.default_rng(0).normal(size=(400, 1))
    low, high = interval(scores)
    half = 1.96 * 1.09 / math.sqrt(400)
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.05)


def test_one_run_has_no_interval() -> None:
    assert all(math.isnan(end) for end in interval(np.ones((1, 1))))


@pytest.mark.parametrize("runs", [2, 3, 4, 5])
def test_intervals_of_few_runs_cover_as_little_as_the_report_says(runs: int) -> None:
    """In 300 experiments whose runs' scores are normal, with a mean of 0."""
    experiments = np.random.default_rng(runs).normal(size=(300, runs, 1))
    covered = np.mean([low <= 0 <= high for low, high in map(interval, experiments)])
    assert covered == pytest.approx(COVERAGE[runs], abs=0.05)


def test_probability_of_improvement_is_mann_and_whitneys() -> None:
    """Aesop's race, as textbooks tell it: THHHHHTTTTTH in order of arrival; the tortoises' U is 11 of 36."""
    order = "THHHHHTTTTTH"
    speeds = {runner: np.array([[-i] for i, who in enumerate(order) if who == runner]) for runner in "TH"}
    slow, low, high = probability_of_improvement(speeds["T"], speeds["H"])
    assert slow == pytest.approx(11 / 36)
    assert 0 <= low < slow < high < 1
    assert probability_of_improvement(speeds["H"], speeds["T"])[0] == pytest.approx(25 / 36)


def test_ties_are_half_an_improvement() -> None:
    assert probability_of_improvement(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]))[0] == pytest.approx(3.5 / 4)


def test_an_improvement_is_averaged_over_environments() -> None:
    """Better in one environment, worse in the other, by any distance: an even chance, in every resample."""
    ours, theirs = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 900.0], [0.5, 700.0], [0.0, 800.0]])
    assert probability_of_improvement(ours, theirs) == (0.5, 0.5, 0.5)


def test_the_interval_of_an_improvement_resamples_the_runs_of_both() -> None:
    """Runs at 0 and 2 against runs at 1: a resample of ours is (0, 0), both, or (2, 2); theirs are all alike."""
    assert probability_of_improvement(np.array([[0.0], [2.0]]), np.ones((3, 1))) == (0.5, 0, 1)
    assert probability_of_improvement(np.ones((3, 1)), np.array([[0.0], [2.0]])) == (0.5, 0, 1)
    chance, *ends = probability_of_improvement(np.array([[3.0]]), np.array([[1.0], [2.0]]))
    assert chance == 1
    assert all(map(math.isnan, ends)), "one run does not show how runs differ"


def test_shares_of_episodes_count_those_at_or_above() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    share, low, high = share_of_episodes(scores, np.array([-1.0, 0.5, 2.0, 2.5, 9.0]))
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
