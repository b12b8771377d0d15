"""What a person sees while a run goes on: a live line and the familiar table, or plain lines where nobody watches."""

from __future__ import annotations

import logging
import math
import time

import rich.box
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from actors.errors import printable
from learner.commands.console import clock
from learner.dataset.dataset import Dataset
from learner.run.callback import Callback
from learner.run.result import Result
from learner.run.trainer import Trainer

log = logging.getLogger("touchdown")

_SIMULATORS = {"envpool": "EnvPool", "gymnasium": "Gymnasium", "transitions": "its own table of transitions"}

_BAR = 10
"""Columns of the progress bar."""
_GAP = "  "
_PLAIN_SECONDS = 5.0
_TABLE_SECONDS = 15.0


def log_to(console: Console) -> None:
    """Show the project's log on this console, one line a message."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, show_time=False, markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


class ProgressDisplay(Callback):
    """A progress bar on a terminal, a line every few seconds elsewhere, and the table at intervals on both.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._row: dict[str, float] = {}
        self._evaluation: dict[str, float] = {}
        self._waited = self._busy = 0.0
        self._next_line = self._next_table = 0.0
        self._said_backend = False
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def on_start(self, trainer: Trainer) -> None:
        """Say what starts, and put up the bar on a terminal."""
        config = trainer.config
        starting = "starting the learner" if trainer.dataset else "starting actors and the learner"
        self._console.print(
            f"[bold]{escape(config.env)}[/bold]: {starting}; "
            f"run directory [bold]{escape(printable(str(trainer.directory)))}[/bold]",
            highlight=False,
        )
        now = time.monotonic()
        self._next_line, self._next_table = now + _PLAIN_SECONDS, now + _TABLE_SECONDS
        if self._console.is_terminal:
            self._progress = Progress(
                BarColumn(bar_width=_BAR),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                refresh_per_second=8,
            )
            self._task = self._progress.add_task("starting", total=1.0)
            self._progress.start()

    def on_wait(self, trainer: Trainer) -> None:
        """Say once who simulates and where the learner is."""
        if trainer.dataset:
            self._say_recorded(trainer, trainer.dataset)
        elif not self._said_backend and trainer.fleet and trainer.fleet.backend:
            self._said_backend = True
            log.info(
                "flying %s on %s with %d actors of %d environments; learning on %s",
                trainer.config.env,
                _SIMULATORS[trainer.fleet.backend],
                trainer.fleet.size,
                trainer.config.rollout.n_envs,
                trainer.learners.device,
            )

    def _say_recorded(self, trainer: Trainer, dataset: Dataset) -> None:
        if not self._said_backend and trainer.learners.device:
            self._said_backend = True
            log.info(
                "%s episodes of %s steps, returns from %.1f to %.1f, mean %.1f; learning on %s",
                *(f"{dataset.num_episodes:,}", f"{dataset.num_steps:,}"),
                *(dataset.returns.min(), dataset.returns.max(), dataset.returns.mean(), trainer.learners.device),
            )

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Renew the live line, and print the table when it is time."""
        self._row = metrics
        self._waited += metrics["time/learner_wait"]
        self._busy += metrics["time/learner_busy"]
        now = time.monotonic()
        if self._progress:
            line = self._line(trainer, self._console.width - _BAR - 1)
            self._progress.update(self._task, description=line, completed=self._share(trainer))
        elif now >= self._next_line:
            self._next_line = now + _PLAIN_SECONDS
            self._console.print(self._line(trainer), highlight=False, soft_wrap=True, markup=False)
        if now >= self._next_table:
            self._next_table = now + _TABLE_SECONDS
            self._console.print(self._table(trainer))

    def on_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Say what a policy scored beside training."""
        self._evaluation = {name: value for name, value in metrics.items() if name.startswith("eval/")}
        of, wanted = metrics["eval/episodes"], trainer.config.evaluation.eval_episodes
        log.info(
            "evaluation at %s steps: %.1f ± %.1f over %d %s episodes on Gymnasium%s",
            f"{metrics['time/total_timesteps']:,.0f}",
            metrics["eval/mean_reward"],
            metrics["eval/std_reward"],
            of,
            "sampled" if trainer.learners.spec.is_sampled else "greedy",
            "" if of == wanted else f", short of {trainer.config.stop.target_return:g}",
        )

    def on_end(self, trainer: Trainer, result: Result) -> None:
        """Print the last table, and in one line what the run came to."""
        self.close()
        counters = result.counters
        if self._row:
            self._console.print(self._table(trainer))
        if trainer.dataset:
            self._console.print(
                f"{result.outcome}: {counters.updates:,} updates from {trainer.dataset.num_episodes:,} episodes "
                f"in {counters.seconds:.1f} s; best evaluation {_mean(counters.best_evaluation)}",
                highlight=False,
                soft_wrap=True,
            )
            return
        self._console.print(
            f"{result.outcome}: {counters.total_timesteps:,} steps, {counters.episodes:,} episodes in "
            f"{counters.seconds:.1f} s ({counters.total_timesteps / max(counters.seconds, 1e-9):,.0f} steps/s); "
            f"mean return {_mean(result.mean_return)}, best {_mean(counters.best_mean_return)}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Take the live line off the screen."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _table(self, trainer: Trainer) -> Table:
        """The last row of the log with the last evaluation; of who flies nothing, without what is flown."""
        shown = self._row | self._evaluation
        if trainer.dataset:
            shown = {name: shown[name] for name in shown if not name.startswith("rollout/") and name != "time/episodes"}
        return metrics_table(shown)

    def _share(self, trainer: Trainer) -> float:
        return trainer.config.stop.progress(*trainer.counters.spent)

    def _line(self, trainer: Trainer, width: float = math.inf) -> str:
        """What matters most comes first; what ``width`` has no room for is left out."""
        row, counters = self._row, trainer.counters
        share = self._share(trainer)
        left = counters.seconds * (1 - share) / share if share > 0 else math.nan
        if trainer.dataset:
            return _GAP.join(
                [
                    f"{counters.updates:>6,} updates",
                    f"at most {clock(left)} left",
                    f"loss {row['train/loss']:.4f}",
                    f"return {_mean(self._evaluation.get('eval/mean_reward', math.nan)):>6}",
                    f"best {_mean(counters.best_evaluation):>6}",
                ]
            )
        parts = [
            f"{counters.total_timesteps:>10,} steps",
            f"at most {clock(left)} left",
            f"return {_mean(row['rollout/ep_rew_mean']):>6}",
            f"best {_mean(counters.best_mean_return):>6}",
            f"{row['time/fps']:>7,.0f} steps/s",
            f"lag {row['rollout/policy_lag']:.1f}",
            f"learner waits {self._waited / max(self._waited + self._busy, 1e-9):>4.0%}",
        ]
        while len(parts) > 1 and len(_GAP.join(parts)) > width:
            parts.pop()
        return _GAP.join(parts)


def _mean(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "–"


def metrics_table(metrics: dict[str, float]) -> Table:
    """The eval/rollout/time/train table that Stable-Baselines3 made familiar."""
    table = Table(box=rich.box.SQUARE, show_header=False, pad_edge=False)
    table.add_column(style="cyan")
    table.add_column(justify="right")
    for section in ("eval", "rollout", "time", "train"):
        if not any(name.startswith(f"{section}/") for name in metrics):
            continue
        table.add_row(f"[bold]{section}/[/bold]", "")
        for name, value in sorted(metrics.items()):
            if name.startswith(f"{section}/"):
                table.add_row(f"  {escape(printable(name.partition('/')[2]))}", _figure(value))
    return table


def _figure(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
