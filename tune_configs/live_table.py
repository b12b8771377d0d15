"""What a person sees while an experiment runs: one table that refreshes, or plain lines where nobody watches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from learner.commands.console import clock
from tune_configs.experiment import Trial

_PLAIN_SECONDS = 10.0
_ORDER = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
_STYLES = {"running": "bold", "failed": "red", "waiting": "dim", "done": "green"}


class LiveTable(Callback):
    """Trial, state, episodes or updates, mean return, steps/s, time left.

    Args:
        console: where to draw.
        trials: all of the experiment's.
        done: those that were done before, by name, and the seconds that each took.
    """

    def __init__(self, console: Console, trials: Sequence[Trial], done: Mapping[str, float]) -> None:
        self.console = console
        self._counted = "updates" if any(trial.is_recorded for trial in trials) else "episodes"
        self._rows: dict[str, dict[str, Any]] = {
            trial.name: {"label": trial.label, "state": "waiting"} for trial in trials
        }
        for name, seconds in done.items():
            self._rows[name] |= {"state": "done", "progress": 1.0, "time_elapsed": seconds}
        self._at_once = 1
        self._next_line = time.monotonic() + _PLAIN_SECONDS
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        self._draw()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live:
            self._live.update(self.table())
            self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its callbacks down to restore them; we restore without

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """See ray.tune.Callback."""
        self._update(trial, state="running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_info: Any
    ) -> None:
        """See ray.tune.Callback."""
        self._update(trial, **{name: result[name] for name in _SHOWN if name in result})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """See ray.tune.Callback."""
        self._end(trial, "failed" if "failure" in self._rows[_name(trial)] else "done")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """See ray.tune.Callback."""
        self._end(trial, "failed")

    def _update(self, trial: Any, **values: Any) -> None:
        self._rows[_name(trial)].update(values)
        running = sum(row["state"] == "running" for row in self._rows.values())
        self._at_once = max(self._at_once, running)
        self._draw()

    def _end(self, trial: Any, state: str) -> None:
        self._update(trial, state=state)
        if not self._live:
            self.console.print(self._line(_name(trial)), highlight=False, soft_wrap=True, markup=False)

    def _draw(self) -> None:
        if self._live:
            self._live.update(self.table())
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PLAIN_SECONDS
            self.console.print(self._overview(), highlight=False)
            for name, row in self._rows.items():
                if row["state"] == "running":
                    self.console.print(f"  {self._line(name)}", highlight=False, soft_wrap=True, markup=False)

    def _overview(self) -> str:
        states = [row["state"] for row in self._rows.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in _ORDER if state in states)
        return f"{counts}; {clock(self.seconds_left())} left"

    def _line(self, name: str) -> str:
        row = self._rows[name]
        if "failure" in row:
            return f"{name}: failed: {row['failure']}"
        mean = row.get("ep_rew_mean", math.nan)
        return (
            f"{name}: {row['state']}, {row.get(self._counted, 0):,.0f} {self._counted}, mean return "
            f"{f'{mean:.1f}' if math.isfinite(mean) else '–'}, {row.get('fps', 0):,.0f} steps/s"
        )

    def seconds_left(self) -> float:
        """Seconds that the whole experiment still takes; NaN before a trial has shown how long one takes.

        A trial takes what its own speed says, one that waits what others of its loss took, or else the others on
        average. Only seconds of training count, not those in which processes start.
        """
        known: dict[str, list[float]] = {}
        for row in self._rows.values():
            if "failure" not in row and row["state"] != "failed" and row.get("progress", 0.0) > 0:
                known.setdefault(row["label"], []).append(row["time_elapsed"] / row["progress"])
        if not known:
            return math.nan
        lengths = {label: statistics.fmean(seconds) for label, seconds in known.items()}
        average = statistics.fmean(lengths.values())
        left = []
        for row in self._rows.values():
            own = _left_of(row)
            if row["state"] in ("running", "waiting"):
                left.append(own if own is not None else lengths.get(row["label"], average))
        return max(sum(left) / self._at_once, max(left, default=0.0))

    def table(self) -> Table:
        """The table as it is now: what runs first, then what is to come, then what is done; in 80 columns."""
        table = Table(title=self._overview(), box=rich.box.SIMPLE_HEAD, show_edge=False)
        table.add_column("trial", overflow="fold")
        table.add_column("state")
        for heading in (self._counted, "mean return", "steps/s", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, row in sorted(self._rows.items(), key=lambda item: _ORDER[item[1]["state"]]):
            left, mean = _left_of(row), row.get("ep_rew_mean", math.nan)
            table.add_row(
                escape(name),
                f"[{_STYLES[row['state']]}]{row['state']}[/]",
                f"{row[self._counted]:,.0f}" if self._counted in row else "",
                f"{mean:.1f}" if math.isfinite(mean) else "",
                f"{row['fps']:,.0f}" if "fps" in row else "",
                clock(left) if row["state"] == "running" and left is not None else "",
            )
        return table


_SHOWN = ("ep_rew_mean", "episodes", "updates", "fps", "time_elapsed", "progress", "failure")


def _left_of(row: Mapping[str, Any]) -> float | None:
    """Seconds that a trial still takes if it goes on as it did; None if it has not begun."""
    progress = row.get("progress", 0.0)
    return row.get("time_elapsed", 0.0) * (1 - progress) / progress if progress > 0 else None


def _name(trial: Any) -> str:
    settings = trial.config["trial"]
    return f"{settings['label']}-{settings['seed']}"
