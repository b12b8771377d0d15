"""The figures of an experiment."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actors.episode import Array
from learner.run.curves import colours, draw_curves
from learner.run.statistics import share_of_episodes
from tune_configs.summary import Run, by_label, episodes_of

PANELS = (
    ("policy loss", "train/policy_gradient_loss"),
    ("baseline: mean of the returns to go", "train/mean_return_target"),
    ("entropy loss", "train/entropy_loss"),
    ("mean reward of the last 100 episodes", "rollout/ep_rew_mean"),
)


def draw(runs: Sequence[Run]) -> dict[str, bytes]:
    """All figures as PNG files, by their names."""
    figures = {
        "four_panels": four_panels(runs),
        "return_by_steps": returns_by(runs, "time/total_timesteps", "environment steps"),
        "return_by_episodes": returns_by(runs, "time/episodes", "episodes"),
        "return_by_seconds": returns_by(runs, "time/time_elapsed", "seconds"),
        "share_of_episodes": shares(runs),
        "final_scores": final_scores(runs),
    }
    files = {}
    for name, figure in figures.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=130)
        files[f"{name}.png"] = file.getvalue()
    return files


def four_panels(runs: Sequence[Run]) -> Figure:
    """The course work's figure: policy loss, baseline, entropy loss and mean reward against episodes."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = np.ravel(figure.subplots(2, 2, sharex=True))
    for axis, (title, column) in zip(axes, PANELS, strict=True):
        _curves(axis, runs, "time/episodes", column)
        axis.set_title(title)
    for axis in axes[2:]:
        axis.set_xlabel("episodes")
    _legend(figure, axes[3])
    return figure


def returns_by(runs: Sequence[Run], column: str, words: str) -> Figure:
    """Mean return in training against steps, episodes or seconds, with 95% intervals over the seeds."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    _curves(axis, runs, column, "rollout/ep_rew_mean")
    axis.set_xlabel(words)
    axis.set_ylabel("mean return of the last 100 training episodes")
    _legend(figure, axis)
    return figure


def thresholds_of(runs: Sequence[Run], points: int = 400) -> Array:
    """Returns that shares of episodes are told of, [points]: from what nearly all reach to what none does."""
    everything = np.concatenate([run.evaluation for run in runs])
    worst, best = np.percentile(everything, 1), everything.max()
    margin = 0.05 * (best - worst) or 1.0  # where all returns are equal
    return np.linspace(worst - margin, best + margin, points)


def shares(runs: Sequence[Run]) -> Figure:
    """Share of evaluation episodes at or above each return, with 95% intervals over the seeds."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    groups = by_label(runs)
    thresholds = thresholds_of(runs)
    for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
        share, low, high = share_of_episodes(episodes_of(group), thresholds)
        axis.plot(thresholds, share, color=colour, label=label)
        axis.fill_between(thresholds, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("return τ")
    axis.set_ylabel("share of evaluation episodes with at least τ")
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return figure


def final_scores(runs: Sequence[Run]) -> Figure:
    """Every seed's score, the mean of its final evaluation, as a dot; the middle half of its episodes as a line."""
    groups = by_label(runs)
    figure = Figure(figsize=(8, 0.5 + 0.55 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for i, ((_, group), colour) in enumerate(zip(groups.items(), colours(len(groups)), strict=True)):
        for j, run in enumerate(group):
            y = i + 0.6 * ((j + 0.5) / len(group) - 0.5)
            axis.plot(np.percentile(run.evaluation, [25, 75]), [y, y], color=colour, linewidth=2, alpha=0.5)
            axis.plot(run.evaluation.mean(), y, "o", color=colour)
    axis.set_yticks(range(len(groups)), list(groups))
    axis.invert_yaxis()
    axis.set_xlabel("return of each seed's final policy: mean of its greedy episodes, and their middle half")
    axis.grid(alpha=0.3)
    return figure


def _curves(axis: Axes, runs: Sequence[Run], x: str, y: str) -> None:
    draw_curves(axis, {label: [run.rows for run in group] for label, group in by_label(runs).items()}, x, y)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
