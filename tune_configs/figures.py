"""The figures of an experiment."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actors.episode import Array
from learner.run.curves import colours, draw_curves
from learner.run.statistics import share_of_episodes
from tune_configs.summary import Run, by_label, episodes_of
from tune_configs.view import View, view_of

Lines = dict[str, float]
"""Returns of what is recorded, by name, to draw as lines."""


def lines_of(recorded: dict[str, Any] | None) -> Lines:
    """The returns to hold runs against that learned from recordings: the mean of these, and the best."""
    if recorded is None:
        return {}
    return {"recorded, mean": recorded["returns"]["mean"], "recorded, best": recorded["returns"]["most"]}


def draw(runs: Sequence[Run], recorded: dict[str, Any] | None = None) -> dict[str, bytes]:
    """All figures as PNG files, by their names."""
    view, lines = view_of([run.trial for run in runs]), lines_of(recorded)
    figures = {
        view.losses: panels(runs, view),
        **{f"return_by_{name}": returns_by(runs, view, name, lines) for name in view.costs},
        "share_of_episodes": shares(runs, lines),
        "final_scores": final_scores(runs, lines),
    }
    files = {}
    for name, figure in figures.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=130)
        files[f"{name}.png"] = file.getvalue()
    return files


def panels(runs: Sequence[Run], view: View) -> Figure:
    """Losses; of runs that fly the course work's figure: policy loss, baseline, entropy loss, return by episodes."""
    rows = len(view.panels) // 2
    figure = Figure(figsize=(11, 4 * rows), layout="constrained")
    axes = np.ravel(figure.subplots(rows, 2, sharex=True))
    column, words = view.panel_cost
    for axis, (title, shown) in zip(axes, view.panels, strict=True):
        _curves(axis, runs, column, shown)
        axis.set_title(title)
    for axis in axes[-2:]:
        axis.set_xlabel(words)
    _legend(figure, axes[-1])
    return figure


def returns_by(runs: Sequence[Run], view: View, cost: str, lines: Lines) -> Figure:
    """Mean return against steps, episodes, updates or seconds, with 95% intervals over the seeds."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    column, words = view.costs[cost]
    _curves(axis, runs, column, view.mean)
    _draw_lines(axis.axhline, lines)
    axis.set_xlabel(words)
    axis.set_ylabel(view.words)
    _legend(figure, axis)
    return figure


def thresholds_of(runs: Sequence[Run], points: int = 400) -> Array:
    """Returns that shares of episodes are told of, [points]: from what nearly all reach to what none does."""
    everything = np.concatenate([run.evaluation for run in runs])
    worst, best = np.percentile(everything, 1), everything.max()
    margin = 0.05 * (best - worst) or 1.0  # where all returns are equal
    return np.linspace(worst - margin, best + margin, points)


def shares(runs: Sequence[Run], lines: Lines) -> Figure:
    """Share of evaluation episodes at or above each return, with 95% intervals over the seeds."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    groups = by_label(runs)
    thresholds = thresholds_of(runs)
    for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
        share, low, high = share_of_episodes(episodes_of(group), thresholds)
        axis.plot(thresholds, share, color=colour, label=label)
        axis.fill_between(thresholds, low, high, color=colour, alpha=0.15, linewidth=0)
    _draw_lines(axis.axvline, lines)
    axis.set_xlabel("return τ")
    axis.set_ylabel("share of evaluation episodes with at least τ")
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return figure


def final_scores(runs: Sequence[Run], lines: Lines) -> Figure:
    """Every seed's score, the mean of its final evaluation, as a dot; the middle half of its episodes as a line."""
    groups = by_label(runs)
    figure = Figure(figsize=(8, 0.5 + 0.55 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for i, ((_, group), colour) in enumerate(zip(groups.items(), colours(len(groups)), strict=True)):
        for j, run in enumerate(group):
            y = i + 0.6 * ((j + 0.5) / len(group) - 0.5)
            axis.plot(np.percentile(run.evaluation, [25, 75]), [y, y], color=colour, linewidth=2, alpha=0.5)
            axis.plot(run.evaluation.mean(), y, "o", color=colour)
    _draw_lines(axis.axvline, lines)
    axis.set_yticks(range(len(groups)), list(groups))
    axis.invert_yaxis()
    axis.set_xlabel("return of each seed's final policy: mean of its episodes, and their middle half")
    axis.grid(alpha=0.3)
    if lines:
        _legend(figure, axis)
    return figure


def _curves(axis: Axes, runs: Sequence[Run], x: str, y: str) -> None:
    draw_curves(axis, {label: [run.rows for run in group] for label, group in by_label(runs).items()}, x, y)


def _draw_lines(draw_line: Callable[..., Any], lines: Lines) -> None:
    for (name, value), style in zip(lines.items(), ("--", ":"), strict=False):
        draw_line(value, color="0.3", linestyle=style, linewidth=1.5, label=name)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
