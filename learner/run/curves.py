"""Learning curves of several runs in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from actors.episode import Array
from learner.run.statistics import mean_curve

Rows = Sequence[Mapping[str, Any]]
"""The rows of a run's metrics.jsonl."""

_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8B4513",
    "#7F7F7F",
    "#B8B000",
)
"""Told apart by colour-blind readers too (Okabe and Ito 2008, and two more)."""


def colours(count: int) -> list[str]:
    """As many colours."""
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def draw_curves(axis: Axes, groups: Mapping[str, Sequence[Rows]], x: str, y: str) -> None:
    """Draw the runs of each group thinly, and their mean with its 95% interval over the runs.

    Args:
        axis: where.
        groups: runs that differ in their seeds, by the group's name.
        x, y: columns of the log.
    """
    for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
        curves = [found for rows in group if len((found := curve(rows, x, y))[0]) > 1]
        for xs, ys in curves:
            axis.plot(xs, ys, color=colour, linewidth=0.6, alpha=0.35)
        if curves and max(xs[0] for xs, _ in curves) < min(xs[-1] for xs, _ in curves):
            grid, mean, low, high = mean_curve(curves)
            axis.plot(grid, mean, color=colour, label=label)
            axis.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.grid(alpha=0.3)


def curve(rows: Rows, x: str, y: str) -> tuple[Array, Array]:
    """The rows that have both columns: x [n], y [n]."""
    known = [(row[x], row[y]) for row in rows if _is_number(row.get(x)) and _is_number(row.get(y))]
    xs, ys = np.array(known, np.float64).reshape(-1, 2).T
    return xs, ys


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
