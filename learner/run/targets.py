"""What came of returns that were asked for: a table, and a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table


def report_targets(scores: Sequence[dict[str, Any]]) -> Table:
    """The scores of policies that acted for a return, a row each, as a table to read."""
    first = scores[0]
    how = "greedy" if first["is_deterministic"] else "sampled"
    title = (
        f"{first['n_eval_episodes']} {how} episodes of {first['env_id']} (Gymnasium) each, "
        f"seeds from {first['first_seed']}"
    )
    table = Table(title=escape(title), min_width=len(title))
    for name in ("asked for", "mean ± std", "median", "mean − asked", "steps", "cut by a time limit"):
        table.add_column(name, justify="right")
    for score in scores:
        mean = score["mean_reward"]
        table.add_row(
            f"{score['target_return']:g}",
            f"{mean:.1f} ± {score['std_reward']:.1f}",
            f"{score['median_reward']:.1f}",
            f"{mean - score['target_return']:+.1f}",
            f"{score['mean_ep_length']:.0f}",
            f"{score['n_truncated']}",
        )
    return table


def figure_of_targets(scores: Sequence[dict[str, Any]]) -> bytes:
    """Returns that were flown over those that were asked for, mean and standard deviation, as a PNG."""
    asked = [score["target_return"] for score in scores]
    flown, spread = ([score[name] for score in scores] for name in ("mean_reward", "std_reward"))
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.add_subplot()
    axis.axline((asked[0], asked[0]), slope=1, color="0.6", linestyle="--", label="as asked")
    axis.errorbar(asked, flown, spread, fmt="o", capsize=3, label="flown, mean ± std")
    axis.set(xlabel="return asked for", ylabel="return flown", title=scores[0]["env_id"])
    axis.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
