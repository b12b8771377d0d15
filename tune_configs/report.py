"""summary.json, summary.md, the figures, and an index.html that shows all of it without a server or a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from learner.run_directory import json_bytes
from learner.storage import Storage
from tune_configs import figures
from tune_configs.experiment import Planned, Trial
from tune_configs.summary import finished_runs, summarise

CAPTIONS = {
    "four_panels": "Policy loss, baseline, entropy loss and mean reward against episodes",
    "return_by_steps": "Return against environment steps",
    "return_by_episodes": "Return against episodes",
    "return_by_seconds": "Return against seconds",
    "performance_profile": "Performance profile: share of evaluation episodes with at least a return of τ",
    "final_scores": "Final policies, seed by seed",
}
HEADINGS = ("loss", "IQM", "95% interval", "mean ± std", "final", "best", "to threshold", "steps/s")


def write(planned: Planned, trials: Sequence[Trial], directory: Storage) -> dict[str, Any]:
    """Write the whole report; returns the summary.

    Raises:
        OSError: the results cannot be read, or the report cannot be written.
    """
    summary, command = summarise(planned.experiment, trials), planned.command
    directory.write("summary.json", json_bytes(summary))
    runs = finished_runs(trials)
    images = figures.draw(runs) if runs else {}
    for name, data in images.items():
        directory.write(name, data)
    directory.write("summary.md", markdown(summary, command, images).encode())
    directory.write("index.html", page(summary, command, images, trials).encode())
    return summary


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of losses, the best interquartile mean first: a row of texts each, under HEADINGS."""
    rows: list[tuple[str, ...]] = []
    losses = summary["losses"]
    for label in sorted(losses, key=lambda label: -losses[label]["evaluation_iqm"]):
        figures_, times = losses[label], summary["times"][label]
        rows.append(
            (
                label,
                f"{figures_['evaluation_iqm']:.1f}",
                _interval(figures_["evaluation_iqm_interval_95"]),
                f"{figures_['evaluation_mean']:.1f} ± {figures_['evaluation_std']:.1f}",
                _number(figures_["final_mean_return"]),
                _number(figures_["best_mean_return"]),
                _to_threshold(figures_, times),
                f"{times['steps_per_second']:,.0f}",
            )
        )
    return rows


def pairs(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Probability of improvement: the row's loss over the column's."""
    labels = list(summary["probability_of_improvement"])
    chances = summary["probability_of_improvement"]
    return [("", *labels)] + [
        (ours, *("" if ours == theirs else f"{chances[ours][theirs]:.2f}" for theirs in labels)) for ours in labels
    ]


def explanation(summary: dict[str, Any]) -> str:
    """What the columns mean, in words."""
    experiment = summary["experiment"]
    threshold = summary["threshold"]
    text = (
        f"Each final policy flew {experiment['evaluation_episodes']} greedy episodes of {experiment['env']} on "
        "Gymnasium, from seeds that no training used: their interquartile mean (IQM) over all seeds and episodes, its "
        "95% bootstrap interval over the training seeds, and mean ± standard deviation. Final and best are running "
        "means of 100 training episodes, averaged over the seeds."
    )
    if threshold is not None:
        text += (
            f" To threshold: how many seeds' running mean reached {threshold:g}, and the median episodes and seconds "
            "that took those."
        )
    return text


def markdown(summary: dict[str, Any], command: str, images: Iterable[str]) -> str:
    """summary.md."""
    lines = [
        f"# {title(summary)}",
        "",
        f"    {command}",
        "",
        explanation(summary),
        "",
        *_markdown_table(HEADINGS, table(summary)),
    ]
    if len(summary["losses"]) > 1:
        first, *rest = pairs(summary)
        lines += ["", "Probability that a run of the row's loss ends above a run of the column's:", ""]
        lines += _markdown_table(first, rest)
    for name, reason in summary["failed"].items():
        lines += ["", f"**{name} failed**: {reason.splitlines()[-1]}"]
    for name in images:
        lines += ["", f"![{CAPTIONS[Path(name).stem]}]({name})"]
    return "\n".join(lines) + "\n"


def title(summary: dict[str, Any]) -> str:
    """One line that says what was compared."""
    experiment = summary["experiment"]
    budget = [f"{experiment[name]:,} {name}" for name in ("episodes", "steps") if experiment[name]] or [
        "6,000 episodes"
    ]
    seeds = experiment["seeds"]
    runs = f"{seeds} seed{'s' * (seeds > 1)} each, {' and '.join(budget)} a run"
    return f"{experiment['env']}: {len(summary['losses'])} losses, {runs}"


def page(summary: dict[str, Any], command: str, images: Mapping[str, bytes], trials: Sequence[Trial]) -> str:
    """index.html: everything in one file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        title=title(summary),
        command=command,
        explanation=explanation(summary),
        headings=HEADINGS,
        table=table(summary),
        pairs=pairs(summary) if len(summary["losses"]) > 1 else [],
        failed=summary["failed"],
        unfinished=summary["unfinished"],
        images=[(CAPTIONS[Path(name).stem], base64.b64encode(data).decode()) for name, data in images.items()],
        trials=[(trial.name, f"runs/{trial.name}") for trial in trials],
    )


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _interval(interval: list[float] | None) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}" if interval else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _to_threshold(figures_: dict[str, Any], times: dict[str, Any]) -> str:
    reached = f"{figures_['seeds_over_threshold']} of {figures_['seeds']}"
    if not figures_["seeds_over_threshold"]:
        return reached
    return f"{reached}: {figures_['episodes_to_threshold']:,.0f} episodes, {times['seconds_to_threshold']:.0f} s"
