"""What a person sees while an experiment runs: one table that refreshes, or plain lines where nobody watches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tune_configs.experiment import Trial

_PLAIN_SECONDS = 10.0
_ORDER = {"running": 0, "failed": 1, "waiting": 2, "done": 3}


class LiveTable(Callback):
    """Trial, loss, seed, state, episodes, mean return, steps/s, time left.

    Args:
        console: where to draw.
        trials: all of the experiment's.
        done: names of those that were done before.
    """

    def __init__(self, console: Console, trials: Sequence[Trial], done: Iterable[str] = ()) -> None:
        self.console = console
        self._rows: dict[str, dict[str, Any]] = {
            trial.name: {"label": trial.label, "seed": trial.seed, "state": "waiting"} for trial in trials
        }
        for name in done:
            self._rows[name]["state"] = "done"
        self._done_before = self._share()
        self._began, self._done_before = time.monotonic(), 0.0
        self._next_line = self._began + _PLAIN_SECONDS
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
            states = [row["state"] for row in self._rows.values()]
            counts = ", ".join(f"{states.count(state)} {state}" for state in _ORDER if state in states)
            self.console.print(f"{counts}; {_clock(self._left())} left", highlight=False)
            for name, row in self._rows.items():
                if row["state"] == "running":
                    self.console.print(f"  {self._line(name)}", highlight=False, soft_wrap=True, markup=False)

    def _line(self, name: str) -> str:
        row = self._rows[name]
        if "failure" in row:
            return f"{name}: failed: {row['failure']}"
        mean = row.get("ep_rew_mean", math.nan)
        return (
            f"{name}: {row['state']}, {row.get('episodes', 0):,.0f} episodes, mean return "
            f"{f'{mean:.1f}' if math.isfinite(mean) else '–'}, {row.get('fps', 0):,.0f} steps/s"
        )

    def _left(self) -> float:
        """Seconds that the whole experiment still takes, if trials go on as they did."""
        share, elapsed = self._share(), time.monotonic() - self._began
        gained = share - self._done_before
        return elapsed * (1 - share) / gained if gained > 0 else math.nan

    def _share(self) -> float:
        """Of all the work, what is done; a trial that failed has nothing left to do."""
        ended = ("done", "failed")
        shares = [1.0 if row["state"] in ended else row.get("progress", 0.0) for row in self._rows.values()]
        return sum(shares) / max(1, len(shares))

    def table(self) -> Table:
        """The table as it is now: what runs first, then what is to come, then what is done."""
        table = Table(caption=f"{_clock(self._left())} left")
        for heading in ("trial", "loss", "seed", "state"):
            table.add_column(heading)
        for heading in ("episodes", "mean return", "steps/s", "time left"):
            table.add_column(heading, justify="right")
        for name, row in sorted(self._rows.items(), key=lambda item: _ORDER[item[1]["state"]]):
            progress, seconds = row.get("progress", 0.0), row.get("time_elapsed", 0.0)
            left = seconds * (1 - progress) / progress if row["state"] == "running" and progress > 0 else math.nan
            style = {"running": "bold", "failed": "red", "waiting": "dim", "done": "green"}[row["state"]]
            mean = row.get("ep_rew_mean", math.nan)
            table.add_row(
                name,
                row["label"],
                str(row["seed"]),
                f"[{style}]{row['state']}[/]",
                f"{row['episodes']:,.0f}" if "episodes" in row else "",
                f"{mean:.1f}" if math.isfinite(mean) else "",
                f"{row['fps']:,.0f}" if "fps" in row else "",
                _clock(left) if math.isfinite(left) else "",
            )
        return table


_SHOWN = ("ep_rew_mean", "episodes", "fps", "time_elapsed", "progress", "failure")


def _name(trial: Any) -> str:
    settings = trial.config["trial"]
    return f"{settings['label']}-{settings['seed']}"


def _clock(seconds: float) -> str:
    return "?" if math.isnan(seconds) else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
