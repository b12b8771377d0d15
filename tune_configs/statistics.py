"""What a handful of training runs can and cannot show (Agarwal et al. 2021, arXiv:2108.13264).

Scores come as [seeds, episodes]: one row for each training run, evaluated over the same episodes. Runs are what the
experiment draws at random, so intervals resample whole rows, within each loss: a hundred episodes of one policy are not
a hundred independent trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from actors.episode import Array

RESAMPLES = 2000


def interquartile_mean(scores: Array) -> float:
    """Mean of the middle half of all scores: as robust as the median, less wasteful."""
    return float(scipy.stats.trim_mean(scores, 0.25, axis=None))


def interval(scores: Array, statistic: Callable[[Array], float]) -> tuple[float, float]:
    """95% percentile-bootstrap interval of a statistic of scores [seeds, episodes]; (NaN, NaN) with a single seed."""
    if len(scores) < 2:
        return math.nan, math.nan
    rows = np.arange(len(scores))
    ends = _bootstrap(rows, lambda drawn: statistic(scores[drawn]), vectorized=False)
    return float(ends.low), float(ends.high)


def probability_of_improvement(ours: Array, theirs: Array) -> float:
    """P(a run of ours scores higher than a run of theirs), ties counted half: Mann and Whitney's U, as a share.

    Args:
        ours, theirs: a score for each run, [seeds].
    """
    u = scipy.stats.mannwhitneyu(ours, theirs, method="asymptotic").statistic
    return float(u / (len(ours) * len(theirs)))


def performance_profile(scores: Array, thresholds: Array) -> tuple[Array, Array, Array]:
    """Share of episodes that reach each threshold, and its pointwise 95% interval.

    Args:
        scores: [seeds, episodes].
        thresholds: [k].

    Returns:
        share, low, high: [k] each; the interval is the share itself with a single seed.
    """
    reached = (scores[:, :, None] >= thresholds).mean(1)  # [seeds, k]
    return _mean_and_interval(reached)


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
    ends = _bootstrap(rows, np.mean, axis=0)
    return mean, ends.low, ends.high


def _bootstrap(sample: Array, statistic: Callable[..., Any], **options: Any) -> Any:
    """The 95% percentile interval, with the same draws every time."""
    found = scipy.stats.bootstrap(
        (sample,), statistic, method="percentile", n_resamples=RESAMPLES, rng=np.random.default_rng(0), **options
    )
    return found.confidence_interval
