"""The figures of an experiment for its page, where values show under the pointer: plotly's, as plain data."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.episode import Array
from learner.run.curves import colours, curve
from learner.run.statistics import mean_curve, share_of_episodes
from tune_configs.figures import Lines, lines_of, thresholds_of
from tune_configs.summary import Run, by_label, episodes_of
from tune_configs.view import view_of

Figure = dict[str, Any]
"""A title, the axes' titles, and plotly's traces. One whose ``meta`` is "seed" is one run's, and can be hidden."""

_POINTS = 400
"""Of a run's curve; more cannot be told apart on a screen."""
_INK = "#7F7F7F"
"""Of what is recorded, on a page light or dark."""


def library() -> str:
    """plotly's program, to stand in the page: it is read without a network."""
    return (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def figures(runs: Sequence[Run], recorded: dict[str, Any] | None = None) -> dict[str, Figure]:
    """All figures by name: the final scores, returns against what they cost, shares of episodes, and losses."""
    view, lines = view_of([run.trial for run in runs]), lines_of(recorded)
    found = {"scores": scores(runs, lines)}
    for name, (column, words) in view.costs.items():
        found[f"return by {name}"] = curves(runs, column, words, view.mean, view.title, lines)
    found["shares"] = shares(runs)
    for title, column in view.panels:
        if column != view.mean:
            found[title] = curves(runs, *view.panel_cost, column, title.capitalize())
    return found


def as_json(found: dict[str, Figure]) -> str:
    """Figures as JSON that can stand in a page: nothing in it ends a script."""
    return json.dumps(found, allow_nan=False).replace("<", "\\u003c")


def scores(runs: Sequence[Run], lines: Lines) -> Figure:
    """Every seed's score as a dot, and the middle half of its episodes as a line."""
    traces = []
    groups = by_label(runs)
    for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
        means = [float(run.evaluation.mean()) for run in group]
        low, high = np.array([np.percentile(run.evaluation, [25, 75]) for run in group]).T
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": means,
                "y": [label] * len(group),
                "marker": {"color": colour, "size": 11},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": np.maximum(high - means, 0).tolist(),
                    "arrayminus": np.maximum(means - low, 0).tolist(),
                    "color": colour,
                    "thickness": 1,
                },
                "text": [f"seed {run.trial.seed}" for run in group],
                "hovertemplate": "%{text}: %{x:.1f}<extra>%{y}</extra>",
                "showlegend": False,
            }
        )
    for name, value in lines.items():
        across = _line(name, _INK, np.full(len(groups), value), np.zeros(len(groups)), 1.5) | _dashed(name, value)
        marker = {"symbol": "line-ns-open", "size": 30, "color": _INK}  # a line of one loss alone has no length
        traces.append(across | {"mode": "lines+markers", "y": [*groups], "marker": marker})
    words = "mean of its episodes, and their middle half"
    return {"title": "Final policies, seed by seed", "x": words, "y": "", "traces": traces}


def curves(runs: Sequence[Run], x: str, x_words: str, y: str, title: str, lines: Lines | None = None) -> Figure:
    """A column of the log against another: runs thinly, each loss's mean with its 95% interval over the runs."""
    traces: list[dict[str, Any]] = []
    ends: list[float] = []
    groups = by_label(runs)
    for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
        known = [(run, found) for run in group if len((found := curve(run.rows, x, y))[0]) > 1]
        for run, (xs, ys) in known:
            ends += [xs[0], xs[-1]]
            every = max(1, math.ceil(len(xs) / _POINTS))
            traces.append(
                _line(label, colour, xs[::every], ys[::every], width=1)
                | {"opacity": 0.45, "meta": "seed", "showlegend": False, "name": f"{label}, seed {run.trial.seed}"}
            )
        if known:
            grid, mean, low, high = mean_curve([found for _, found in known])
            traces += _band(label, colour, grid, low, high)
            traces.append(_line(label, colour, grid, mean, width=2.5))
    for name, value in (lines or {}).items() if ends else ():
        across = np.array([min(ends), max(ends)])
        traces.append(_line(name, _INK, across, np.full(2, value), 1.5) | _dashed(name, value))
    return {"title": title, "x": x_words, "y": "", "traces": traces}


def shares(runs: Sequence[Run]) -> Figure:
    """Share of evaluation episodes at or above each return, with 95% intervals over the runs."""
    groups = by_label(runs)
    thresholds = thresholds_of(runs, points=200)
    traces: list[dict[str, Any]] = []
    for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
        share, low, high = share_of_episodes(episodes_of(group), thresholds)
        traces += _band(label, colour, thresholds, low, high)
        traces.append(_line(label, colour, thresholds, share, width=2.5))
    return {"title": "Share of final episodes with at least a return", "x": "return", "y": "", "traces": traces}


def _line(label: str, colour: str, xs: Array, ys: Array, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label,
        "legendgroup": label,
        "x": [float(f"{x:.6g}") for x in xs],
        "y": [float(f"{y:.5g}") if math.isfinite(y) else None for y in ys],
        "line": {"color": colour, "width": width},
        "hovertemplate": "%{y:.4g} at %{x:,.4~g}",
    }


def _dashed(name: str, value: float) -> dict[str, Any]:
    return {"line": {"color": _INK, "width": 1.5, "dash": "dash"}, "hovertemplate": f"{value:.4g}<extra>{name}</extra>"}


def _band(label: str, colour: str, xs: Array, low: Array, high: Array) -> list[dict[str, Any]]:
    quiet = {"showlegend": False, "hoverinfo": "skip", "meta": "band"}
    lower = _line(label, colour, xs, low, width=0) | quiet
    upper = _line(label, colour, xs, high, width=0) | quiet
    fill = f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.15)"
    return [lower, upper | {"fill": "tonexty", "fillcolor": fill}]
