"""summary.json, summary.md, the figures, and an index.html that shows all of it without a server or a network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from learner.keeping.storage import Storage
from learner.run.run_directory import json_bytes
from learner.run.statistics import COVERAGE
from tune_configs import figures, interactive
from tune_configs.experiment import CURVE_EPISODES, Experiment, Planned, Trial
from tune_configs.summary import Run, finished_runs, summarise
from tune_configs.verdict import in_words, verdict
from tune_configs.view import view_of

CAPTIONS = {
    "four_panels": "Policy loss, baseline, entropy loss and mean reward against episodes",
    "losses": "Surprise at recorded actions, and entropy loss, against updates",
    "return_by_steps": "Return against environment steps",
    "return_by_episodes": "Return against episodes",
    "return_by_updates": "Return against updates",
    "return_by_seconds": "Return against seconds",
    "share_of_episodes": "Share of evaluation episodes, of all seeds, with at least a return of τ",
    "final_scores": "Final policies, seed by seed",
}
HEADINGS = ("loss", "IQM", "95% interval", "mean ± std", "final", "best", "to threshold", "steps/s")
IN_A_TERMINAL = ("loss", "IQM", "95% interval", "mean ± std", "best", "steps/s")
"""Those that fit into 80 columns."""
PAIRS = "Probability that a run of the row's loss ends above a run of the column's, and its 95% interval"


def write(planned: Planned, trials: Sequence[Trial], directory: Storage) -> dict[str, Any]:
    """Write the whole report; returns the summary.

    Raises:
        OSError: the results cannot be read, or the report cannot be written.
    """
    summary, command = summarise(planned.experiment, trials, planned.recorded), planned.command
    directory.write("summary.json", json_bytes(summary))
    runs = finished_runs(trials)
    images = figures.draw(runs, planned.recorded) if runs else {}
    for name, data in images.items():
        directory.write(name, data)
    directory.write("summary.md", markdown(summary, command, images).encode())
    directory.write("index.html", page(summary, command, runs, trials).encode())
    return summary


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of losses, the best interquartile mean of runs first: a row of texts each, under HEADINGS."""
    rows: list[tuple[str, ...]] = []
    losses = summary["losses"]
    for label in sorted(losses, key=lambda label: -losses[label]["score_iqm"]):
        figures_, times = losses[label], summary["times"][label]
        rows.append(
            (
                label,
                f"{figures_['score_iqm']:.1f}",
                _interval(figures_["score_iqm_interval_95"]),
                f"{figures_['evaluation_mean']:.1f} ± {figures_['evaluation_std']:.1f}",
                _number(figures_["final_mean_return"]),
                _number(figures_["best_mean_return"]),
                _to_threshold(figures_, times),
                f"{times['steps_per_second']:,.0f}",
            )
        )
    return rows


def pairs(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Probability of improvement, and its interval: the row's loss over the column's."""
    labels = list(summary["probability_of_improvement"])
    chances = summary["probability_of_improvement"]
    return [("", *labels)] + [
        (ours, *("" if ours == theirs else _chance(chances[ours][theirs]) for theirs in labels)) for ours in labels
    ]


def explanation(summary: dict[str, Any]) -> str:
    """What the columns mean, in words."""
    experiment = summary["experiment"]
    threshold, recorded = summary["threshold"], summary["recorded"]
    greedy = "greedy episodes" if recorded is None else "episodes (greedy, but sampled where it acts for a return)"
    text = (
        f"Each final policy flew {experiment['evaluation_episodes']} {greedy} of {experiment['env']} on "
        "Gymnasium, from seeds that no training used; their mean is the run's score. IQM is the interquartile mean of "
        "the runs' scores (of three runs none is trimmed, of four or five the best and the worst), with its 95% "
        "bootstrap interval over the runs. Mean ± standard deviation are those of all episodes. Final and best are "
    )
    if recorded is None:
        text += "running means of 100 training episodes, averaged over the runs."
    else:
        text += (
            f"evaluations beside training, of {CURVE_EPISODES} episodes each, averaged over the runs. Steps are those "
            f"that were read: nothing was flown to learn from. Recorded are {in_words(recorded)}."
        )
    if threshold is not None:
        reached, counted = ("running mean", "episodes") if recorded is None else ("evaluations", "updates")
        text += (
            f" To threshold: how many seeds' {reached} reached {threshold:g}, and the median {counted} and seconds "
            "that took those."
        )
    return text


def caution(summary: dict[str, Any]) -> str:
    """What the intervals of as many runs as there are can be trusted with; empty where there is nothing to say."""
    runs = sorted({figures_["seeds"] for figures_ in summary["losses"].values()})
    text = []
    if 1 in runs:
        text.append("A single run has no interval: nothing is known of how others would differ.")
    covered = [f"{COVERAGE[count]:.0%} with {count} runs" for count in runs if count in COVERAGE]
    if covered:
        text.append(
            "Intervals from few runs cover less than they claim. Of the nominal 95%, a simulation with normal scores "
            f"found {' and '.join(covered)}."
        )
    return " ".join(text)


def caution_of_pairs(summary: dict[str, Any]) -> str:
    """What an interval without width is worth."""
    runs = min((figures_["seeds"] for figures_ in summary["losses"].values() if figures_["seeds"] > 1), default=0)
    if not 2 <= runs <= 5:
        return ""
    return (
        "Where every run of one loss is above every run of the other the interval has no width; with "
        f"{runs} runs each, chance alone does that to one in {math.comb(2 * runs, runs) // 2} pairs of equal losses."
    )


def markdown(summary: dict[str, Any], command: str, images: Iterable[str]) -> str:
    """summary.md."""
    lines = [
        f"# {title(summary)}",
        "",
        f"    {command}",
        "",
        *verdict(summary),
        "",
        explanation(summary),
        "",
        *_markdown_table(HEADINGS, table(summary)),
    ]
    if text := caution(summary):
        lines += ["", text]
    if len(summary["losses"]) > 1:
        first, *rest = pairs(summary)
        lines += ["", f"{PAIRS}:", ""]
        lines += _markdown_table(first, rest)
        if text := caution_of_pairs(summary):
            lines += ["", text]
    for name, reason in summary["failed"].items():
        lines += ["", f"**{name} failed**: {reason.splitlines()[-1]}"]
    for name in images:
        lines += ["", f"![{CAPTIONS[Path(name).stem]}]({name})"]
    return "\n".join(lines) + "\n"


def title(summary: dict[str, Any]) -> str:
    """One line that says what was compared."""
    experiment = Experiment(**summary["experiment"])
    words = ("episodes", "steps", "updates")
    budget = [f"{most:,} {word}" for word, most in zip(words, experiment.budget.values(), strict=True) if most]
    seeds = experiment.seeds
    runs = f"{seeds} seed{'s' * (seeds > 1)} each, {' and '.join(budget)} a run"
    learned = f" on {experiment.dataset}" if experiment.dataset is not None else ""
    return f"{experiment.env}: {len(summary['losses'])} losses{learned}, {runs}"


def page(summary: dict[str, Any], command: str, runs: Sequence[Run], trials: Sequence[Trial]) -> str:
    """index.html: everything in one file, figures that answer to the pointer and what draws them too."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        title=title(summary),
        command=command,
        explanation=explanation(summary),
        headings=HEADINGS,
        table=table(summary),
        caution=caution(summary),
        pairs_heading=PAIRS,
        pairs=pairs(summary) if len(summary["losses"]) > 1 else [],
        caution_of_pairs=caution_of_pairs(summary),
        failed=summary["failed"],
        unfinished=summary["unfinished"],
        verdict=verdict(summary),
        figures=interactive.as_json(interactive.figures(runs, summary["recorded"])) if runs else "",
        costs=list(view_of(trials).costs),
        library=interactive.library() if runs else "",
        trials=[(trial.name, f"runs/{trial.name}") for trial in trials],
    )


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _interval(interval: list[float] | None) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}" if interval else "–"


def _chance(chance: dict[str, Any]) -> str:
    ends = chance["interval_95"]
    return f"{chance['probability']:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _to_threshold(figures_: dict[str, Any], times: dict[str, Any]) -> str:
    reached = f"{figures_['seeds_over_threshold']} of {figures_['seeds']}"
    if not figures_["seeds_over_threshold"]:
        return reached
    (counted,) = (name for name in ("episodes", "updates") if f"{name}_to_threshold" in figures_)
    needed = figures_[f"{counted}_to_threshold"]
    return f"{reached}: {needed:,.0f} {counted}, {times['seconds_to_threshold']:.0f} s"
