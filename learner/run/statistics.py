"""What a handful of training runs can and cannot show (Agarwal et al. 2021, arXiv:2108.13264).

A run's score is the mean of its final evaluation. Runs are what an experiment draws at random, so scores come as
[runs, environments], and intervals resample runs, within each environment (the paper's stratified bootstrap): a hundred
episodes of one policy are not a hundred independent trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from actors.episode import Array

RESAMPLES = 2000
COVERAGE = {2: 0.50, 3: 0.75, 4: 0.88, 5: 0.90, 6: 0.90, 7: 0.91, 8: 0.93, 9: 0.93}
"""How often the 95% interval of that many runs' interquartile mean holds the true one, where scores are normal and of
one environment: simulated, by a test. With ten runs it is 0.94; two or three with skewed scores fare worse."""


def interquartile_mean(scores: Array, axis: int | None = None) -> Any:
    """Mean of the middle half of all scores: as robust as the median, less wasteful.

    Of three runs none is trimmed, of four or five one at either end.
    """
    return scipy.stats.trim_mean(scores, 0.25, axis=axis)


def interval(scores: Array) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the interquartile mean of scores [runs, environments].

    Returns:
        low, high; (NaN, NaN) with a single run. What few runs' intervals are worth: ``COVERAGE``.
    """
    if len(scores) < 2:
        return math.nan, math.nan

    def of_all(*environments: Array, axis: int) -> Any:
        return interquartile_mean(np.concatenate(environments, axis), axis)

    ends = _bootstrap(tuple(scores.T), of_all)
    return float(ends.low), float(ends.high)


def probability_of_improvement(ours: Array, theirs: Array) -> tuple[float, float, float]:
    """P(a run of ours scores higher than a run of theirs), ties counted half, and its 95% bootstrap interval.

    It is Mann and Whitney's U, as a share, averaged over the environments.

    Args:
        ours, theirs: [runs, environments].

    Returns:
        probability, low, high; no interval (NaN, NaN) where either has a single run.
    """
    environments = ours.shape[1]

    def share(*samples: Array, axis: int) -> Any:
        pairs = zip(samples[:environments], samples[environments:], strict=True)
        signs = [np.sign(mine[..., :, None] - other[..., None, :]).mean((axis - 1, axis)) for mine, other in pairs]
        return 0.5 + np.mean(signs, axis=0) / 2

    samples = (*ours.T, *theirs.T)
    probability = float(share(*samples, axis=-1))
    if min(len(ours), len(theirs)) < 2:
        return probability, math.nan, math.nan
    ends = _bootstrap(samples, share)
    return probability, float(ends.low), float(ends.high)


def share_of_episodes(episodes: Array, thresholds: Array) -> tuple[Array, Array, Array]:
    """Share of episodes that reach each threshold, and its pointwise 95% interval over the runs.

    The paper's performance profile counts runs; of a few runs of one environment that is a handful of steps, and hides
    how often a policy crashes.

    Args:
        episodes: returns, [runs, episodes].
        thresholds: [k].

    Returns:
        share, low, high: [k] each; the interval is the share itself with a single run.
    """
    return _mean_and_interval((episodes[:, :, None] >= thresholds).mean(1))


def mean_curve(curves: list[tuple[Array, Array]], points: int = 200) -> tuple[Array, Array, Array, Array]:
    """The mean of several runs' learning curves, and its pointwise 95% interval, as far as all of them reach.

    Args:
        curves: (x [n], y [n]) of each run, x increasing.
        points: of the common grid.

    Returns:
        x, mean, low, high: [points] each.
    """
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(start, end, points)
    return grid, *_mean_and_interval(np.stack([np.interp(grid, x, y) for x, y in curves]))


def _mean_and_interval(rows: Array) -> tuple[Array, Array, Array]:
    mean = rows.mean(0)
    if len(rows) < 2:
        return mean, mean, mean
    ends = _bootstrap((rows,), np.mean, axis=0)
    return mean, ends.low, ends.high


def _bootstrap(samples: tuple[Array, ...], statistic: Callable[..., Any], axis: int = -1) -> Any:
    """The 95% percentile interval, each sample resampled on its own, with the same draws every time."""
    found = scipy.stats.bootstrap(
        samples, statistic, method="percentile", n_resamples=RESAMPLES, axis=axis, rng=np.random.default_rng(0)
    )
    return found.confidence_interval
