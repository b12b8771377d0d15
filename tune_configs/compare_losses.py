"""``python -m tune_configs.compare_losses``: losses on equal terms, and what can honestly be said of them.

python -m tune_configs.compare_losses
python -m tune_configs.compare_losses --losses cpg aac ppo --seeds 5 --env LunarLander-v3 --steps 1000000
python -m tune_configs.compare_losses --peers rllib sb3
python -m tune_configs.compare_losses --losses dqn pqn ppo --peers sb3-dqn rllib-dqn --env LunarLander-v3 --steps 200000
python -m tune_configs.compare_losses --dataset datasets/lander --losses bc dt --seeds 5
python -m tune_configs.compare_losses --resume results/compare_losses/<name>
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("tune_configs.compare_losses")

import argparse
import contextlib
import dataclasses
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import filelock
import ray
import rich.box
import rich.markup
import tyro
from ray import tune
from rich.console import Console
from rich.table import Table

from actors.environment_name import parse as parse_name
from actors.errors import UserError
from learner.commands.command_line import one_line_errors, parse
from learner.commands.signals import EndedBySignal, keeping
from learner.dataset.config import recorded_environment
from learner.keeping.metrics_log import read_rows
from learner.keeping.storage import Disk, Storage
from learner.run.progress import log_to
from learner.run.ray_session import start_ray
from tune_configs import report
from tune_configs.experiment import (
    RECORDED_LOSSES,
    Experiment,
    Planned,
    Trial,
    load,
    open_experiment,
    plan,
    require_all,
    require_free,
    save,
    train_config,
    trials_of,
)
from tune_configs.live_table import LiveTable
from tune_configs.loggers import loggers
from tune_configs.ray_tune import check_room, ending_trials, gpu_share_of, room_for, run_config
from tune_configs.summary import finished_runs
from tune_configs.trainable import placement, run_trial

log = logging.getLogger("touchdown")

_PROG = "python -m tune_configs.compare_losses"


@dataclasses.dataclass(frozen=True)
class CompareCommand:
    """Run every loss on equal terms, a few seeds each, and report what a careful reader would ask for."""

    name: str | None = None
    """The experiment's directory under --results; None: <env>-<time>."""
    results: str = "results/compare_losses"
    """Where experiments are kept: a path, s3://… or gs://…"""
    resume: str | None = None
    """Go on with the experiment in this directory: finished trials are kept, others go on from their checkpoints."""
    concurrent: int | None = None
    """Trials at once, at most; None: as many as the cluster has room for."""
    gpu_share: float | None = None
    """GPUs of each trial's learner; None: the cluster's, shared between as many trials as its CPUs carry."""
    mlflow: str | None = None
    """Also log to MLflow: a tracking URI, such as file:./mlruns."""
    wandb: str | None = None
    """Also log to Weights & Biases: a project's name."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment()
    """What is compared."""

    def __post_init__(self) -> None:
        if self.concurrent is not None and self.concurrent < 1:
            raise UserError(f"concurrent must be 1 or more, not {self.concurrent}")
        if self.gpu_share is not None and not 0 <= self.gpu_share <= 1:
            raise UserError(f"gpu_share must lie between 0 and 1, not {self.gpu_share}")


def read_command(arguments: Sequence[str]) -> CompareCommand:
    """The command line; with ``--resume``, over the experiment that is there.

    Raises:
        UserError: something in it is wrong.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--resume", "--dataset", "--env"):
        first.add_argument(name, default=None)
    try:
        known, _ = first.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    stored = load(open_experiment(known.resume)).experiment if known.resume else Experiment()
    if known.dataset not in (None, "None") and not known.resume:
        stored = Experiment(RECORDED_LOSSES, env=known.env or recorded_environment(known.dataset))
    default = CompareCommand(experiment=stored)
    command = parse(tyro.conf.OmitArgPrefixes[CompareCommand], arguments, default, _PROG, __doc__ or "")
    if command.resume and command.experiment != stored:
        raise UserError(f"--resume keeps the experiment of {command.resume}; leave the options that change it out")
    if command.resume and command.name:
        raise UserError("--resume goes on in the experiment's own directory: leave --name out")
    return command


@contextlib.contextmanager
def alone_in(directory: Storage) -> Iterator[None]:
    """Keep other processes from going on with the same experiment.

    An object store has no locks: there, two processes are not kept apart.

    Raises:
        UserError: one already does.
    """
    if not isinstance(directory, Disk):
        yield
        return
    lock = filelock.FileLock(directory.path / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"another process runs the experiment in {directory}") from None
    with lock:
        yield


def compare(command: CompareCommand, console: Console) -> int:
    """Run what has not been run, and write the report.

    Returns:
        The exit status: 0, or 1 if a trial failed.

    Raises:
        UserError: the experiment cannot be run; nothing has started then.
        EndedBySignal: it was interrupted, and can go on.
    """
    callbacks = loggers(command.mlflow, command.wandb)
    experiment = command.experiment
    name = command.name or f"{parse_name(experiment.env).slug}-{time.strftime('%Y%m%d-%H%M%S')}"
    directory = open_experiment(command.resume) if command.resume else open_experiment(command.results).within(name)
    if command.resume:
        planned = load(directory)
    else:
        planned = plan(experiment, shlex.join(["python", "-m", "tune_configs.compare_losses", *sys.argv[1:]]))
        require_free(planned, directory)
    require_all(planned)
    trials = trials_of(planned, directory)
    actors = min(experiment.actors, max(train_config(trial).fleet.max_outstanding for trial in trials))
    if actors < experiment.actors:
        log.warning("%d actors asked for; no trial has work for more than %d at once", experiment.actors, actors)
    start_ray()
    share = gpu_share_of(command.gpu_share, actors, len(trials))
    check_room(placement(actors, share))
    if not command.resume:
        save(planned, directory)
    with alone_in(directory), keeping(f"go on with --resume {directory}"):
        return run_and_report(command, planned, directory, placement(actors, share), share, callbacks, console)


def run_and_report(
    command: CompareCommand,
    planned: Planned,
    directory: Storage,
    resources: tune.PlacementGroupFactory,
    gpu_share: float,
    callbacks: Sequence[Any],
    console: Console,
) -> int:
    """Run the trials that have no outcome yet, and report on all; returns the exit status."""
    trials = trials_of(planned, directory)
    done = {run.trial.name: run.outcome["seconds"] for run in finished_runs(trials)}
    pending = [trial for trial in trials if trial.name not in done]
    pending.sort(key=lambda trial: trial.seed > 0)  # one of each first: then it is known how long the others take
    console.print(
        f"{len(pending)} of {len(trials)} trials to run; results in [bold]{directory}[/bold]",
        highlight=False,
        soft_wrap=True,
    )
    died: dict[str, str] = {}
    signals: list[int] = []
    if pending:
        table = LiveTable(console, trials, done)
        with ending_trials() as signals:
            died = run_trials(pending, resources, gpu_share, command.concurrent, directory, table, callbacks)
    for trial in pending:
        if trial.name in died and "failure.txt" not in trial.storage.names():
            trial.storage.write("failure.txt", f"{died[trial.name]}\n".encode())
    summary = report.write(planned, trials, directory)
    console.print(result_table(summary))
    if caution := report.caution(summary):
        console.print(caution, highlight=False)
    console.print(f"report: {directory}/index.html", highlight=False, soft_wrap=True)
    for name, reason in summary["failed"].items():
        console.print(f"{name} failed: {reason.splitlines()[-1]}", style="red", highlight=False, markup=False)
    if signals:
        raise EndedBySignal(signals[0])
    return 1 if summary["failed"] else 0


def run_trials(
    trials: Sequence[Trial],
    resources: tune.PlacementGroupFactory,
    gpu_share: float,
    concurrent: int | None,
    directory: Storage,
    table: LiveTable,
    callbacks: Sequence[Any],
) -> dict[str, str]:
    """Run trials under Ray Tune, as many at once as there is room for; returns why processes of some were lost."""
    for trial in trials:
        trial.storage.remove("failure.txt")  # what failed is tried again
    before, began = training_seconds(trials), time.monotonic()
    with tunes_own_files(directory) as path:
        tuner = tune.Tuner(
            tune.with_resources(run_trial, resources),
            param_space={
                "trial": tune.grid_search([dataclasses.asdict(trial) for trial in trials]),
                "gpu_share": gpu_share,
            },
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent, reuse_actors=True),
            run_config=run_config(path, [table, *callbacks]),
        )
        with table:
            results = tuner.fit()
    at_once = max(1, min(len(trials), concurrent or len(trials), room_for(resources)))
    seconds, trained = time.monotonic() - began, training_seconds(trials) - before
    table.console.print(
        f"{trained:,.0f} s of training in {seconds:,.0f} s, {at_once} at once: {trained / (seconds * at_once):.0%}",
        highlight=False,
    )
    lost = [result for result in map(results.__getitem__, range(len(results))) if result.error]
    return {Trial(**result.config["trial"]).name: str(result.error) for result in lost if result.config}


@contextlib.contextmanager
def tunes_own_files(directory: Storage) -> Iterator[Path]:
    """Where Tune keeps its records: beside the results, or here for the time being if those are in an object store.

    Only this process reads them: what a trial needs to go on is in its run's directory.
    """
    if isinstance(directory, Disk):
        yield directory.path
        return
    with tempfile.TemporaryDirectory(prefix="touchdown-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def training_seconds(trials: Sequence[Trial]) -> float:
    """Seconds that trials have spent so far between their first rollouts and their last updates."""
    logs = [read_rows(trial.storage) for trial in trials]
    return sum(float(rows[-1]["time/time_elapsed"]) for rows in logs if rows)


def result_table(summary: dict[str, Any]) -> Table:
    """The table of losses, for the terminal: of its columns those that fit."""
    table = Table(title=report.title(summary), box=rich.box.SIMPLE_HEAD)
    for heading in report.IN_A_TERMINAL:
        name = heading == "loss"
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in report.table(summary):
        cells = dict(zip(report.HEADINGS, row, strict=True))
        table.add_row(*(rich.markup.escape(cells[heading]) for heading in report.IN_A_TERMINAL))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    console = Console()
    log_to(console)
    with one_line_errors(_PROG):
        command = read_command(sys.argv[1:] if arguments is None else arguments)
        status = compare(command, console)
    if ray.is_initialized():
        ray.shutdown()
    sys.exit(status)
