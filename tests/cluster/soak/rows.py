"""What the rows of a run's log must be at any moment, whatever has struck: each update once, and in order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]


def complaints(rows: Rows, batch: int) -> list[str]:
    """What is wrong with the rows of a log of less than twenty thousand updates.

    Args:
        rows: all of them; each is an update.
        batch: steps that the environments take for an update, resets among them, which are no experience.
    """
    said = []
    for index, row in enumerate(rows):
        if row["train/n_updates"] != index + 1:
            said.append(f"row {index + 1} is of update {row['train/n_updates']:g}: one is lost, or there twice")
            break
    starts = [{"time/total_timesteps": 0, "time/time_elapsed": 0.0, "time/episodes": 0}, *rows]
    for before, after in itertools.pairwise(starts):
        steps = after["time/total_timesteps"] - before["time/total_timesteps"]
        if not 0.7 * batch < steps <= batch:
            said.append(f"update {after['train/n_updates']:g} counts {steps:g} steps, its batch is {batch}")
        for name in ("time/time_elapsed", "time/episodes"):
            if after[name] < before[name]:
                said.append(f"{name} falls at update {after['train/n_updates']:g}")
    return said


def went_back(before: Rows, after: Rows) -> float:
    """Seconds of training that a log read earlier has, and the one read later has not or has otherwise."""
    same = min(len(before), len(after))
    while same and before[same - 1] != after[same - 1]:  # what differs is at the end
        same -= 1
    if same == len(before):
        return 0.0
    return float(before[-1]["time/time_elapsed"] - (before[same - 1]["time/time_elapsed"] if same else 0.0))


def longest_pause(rows: Rows, since: int) -> float:
    """The longest time between two updates after that many rows, in seconds of the run's own clock."""
    times = [row["time/time_elapsed"] for row in rows[max(0, since - 1) :]]
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)
