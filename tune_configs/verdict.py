"""What an experiment has shown, in sentences: who is ahead, how sure that is, and what it cost."""

from __future__ import annotations

from typing import Any

_SURE, _LIKELY = 0.95, 0.75
"""Probabilities that a run of one loss ends above a run of another."""
_MANY = 5
"""Runs; intervals of no more than these cover less than they claim."""


def verdict(summary: dict[str, Any]) -> list[str]:
    """Sentences, the first one the answer; none where no run has an outcome.

    Args:
        summary: the contents of summary.json.
    """
    losses = summary["losses"]
    if not losses:
        return []
    first, *others = sorted(losses, key=lambda label: -losses[label]["score_iqm"])
    if others:
        said = _best_two(first, others[0], losses, summary["probability_of_improvement"][first][others[0]])
    else:
        said = [f"{first} scores {_score(losses[first])}."]
    times = summary["times"]
    quickest = max(times, key=lambda label: times[label]["steps_per_second"])
    steps = sum(losses[label]["steps"] for label in losses)
    seconds = sum(times[label]["seconds"] for label in times)
    runs = sum(losses[label]["seeds"] for label in losses)
    recorded = summary["recorded"]
    did, kind = ("flew", "environment") if recorded is None else ("read", "recorded")
    fastest = f"; {quickest} {did} the most in a second, {times[quickest]['steps_per_second']:,.0f}" if others else ""
    if recorded is not None:
        mean, most = recorded["returns"]["mean"], recorded["returns"]["most"]
        score = losses[first]["score_iqm"]
        where = "above the best" if score > most else "above the mean" if score > mean else "not above the mean"
        said.append(f"{first} is {where} of what it learned from: {in_words(recorded)}.")
    said.append(f"{runs} run{'s' * (runs > 1)} took {steps:,} {kind} steps and {_long(seconds)} of training{fastest}.")
    if lacking := {*summary["failed"], *summary["unfinished"]}:
        said.append(f"{len(lacking)} more without an outcome: not in this.")
    return said


def in_words(recorded: dict[str, Any]) -> str:
    """What a dataset holds: see ``Dataset.summary``."""
    returns = recorded["returns"]
    return f"{recorded['episodes']:,} episodes, mean return {returns['mean']:.1f}, best {returns['most']:.1f}"


def _best_two(first: str, second: str, losses: dict[str, Any], chance: dict[str, Any]) -> list[str]:
    probability, ends = chance["probability"], chance["interval_95"]
    runs = min(losses[first]["seeds"], losses[second]["seeds"])
    scores = f"{_score(losses[first])} against {_score(losses[second])} of {second}"
    if not ends:
        return [f"{first} scores {scores}.", "From a single run of either nothing is known of how sure that is."]
    sure = f"{probability:.0%} ({ends[0]:.0%} to {ends[1]:.0%})"
    odds = f"A run of {first} ends above one of {second} with a chance of {sure}"
    if ends[0] > 0.5 and probability >= _SURE and runs > _MANY:
        return [f"{first} is ahead: {scores}.", f"{odds}: as good as certain."]
    if ends[0] > 0.5 or probability >= _LIKELY:
        return [f"{first} is ahead: {scores}.", f"{odds}: likely, and with {runs} runs each not sure."]
    return [f"{first} and {second} are level: {scores}.", f"{odds}: no difference to build on."]


def _score(figures: dict[str, Any]) -> str:
    ends = figures["score_iqm_interval_95"]
    return f"{figures['score_iqm']:.1f}" + (f" ({ends[0]:.1f} to {ends[1]:.1f})" if ends else "")


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
