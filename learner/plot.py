"""``python -m learner.plot runs/*``: the learning curves of runs in one picture, means and intervals over their seeds.

python -m learner.plot runs/ppo-* --out curves.png
python -m learner.plot runs/a runs/b --x seconds --y train/entropy_loss

Runs that differ in nothing but their seed are drawn as one: each thinly, their mean with its 95% interval.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("learner.plot")

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from actors.errors import UserError, unknown
from actors.files import replacing
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from learner.keeping.metrics_log import read_rows
from learner.run.curves import draw_curves
from learner.run.run_directory import RunDirectory, differences

_COLUMNS = {"steps": "time/total_timesteps", "episodes": "time/episodes", "seconds": "time/time_elapsed"}


@dataclasses.dataclass(frozen=True)
class PlotCommand:
    """Draw the learning curves of runs."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run directories: paths, s3://… or gs://…"""
    out: Path = Path("curves.png")
    """The picture: .png, .svg or .pdf."""
    x: Literal["steps", "episodes", "seconds"] = "steps"
    """What runs along."""
    y: str = "rollout/ep_rew_mean"
    """The column of the log that is drawn, eval/mean_reward say."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("which runs? Give their directories, as in runs/*")
        if self.out.suffix not in (".png", ".svg", ".pdf"):
            raise UserError(f"out must end in .png, .svg or .pdf, not {self.out.name}")


@dataclasses.dataclass(frozen=True)
class Logged:
    """A run as it is drawn."""

    name: str
    """Its preset, and its environment."""
    options: dict[str, Any]
    """Its configuration, without the seed."""
    rows: list[dict[str, Any]]


def read(location: str) -> Logged:
    """A run's log and what it is of.

    Raises:
        UserError: there is no run, or nothing is logged yet.
    """
    directory = RunDirectory(location)
    options = {**directory.options(), "seed": None}
    rows = read_rows(directory.storage)
    if len(rows) < 2:
        raise UserError(f"{directory} has {'one update' if rows else 'no update'} yet: no curve")
    preset = (directory.made_by() or {}).get("preset") or options.get("algorithm", {}).get("name")
    return Logged(f"{preset} on {options.get('env')}", options, rows)


def grouped(runs: list[Logged]) -> dict[str, list[list[dict[str, Any]]]]:
    """The logs of runs that differ in their seeds alone, by names that tell the groups apart."""
    groups: dict[str, list[Logged]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.options, sort_keys=True), []).append(run)
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for members in groups.values():
        name = members[0].name
        alike = next((other[0] for other in groups.values() if other[0].name == name and other is not members), None)
        if alike:
            changed = differences(alike.options, members[0].options)
            name += f" ({', '.join(f'{option} {after}' for option, (_, after) in changed.items())})"
        found[name] = [run.rows for run in members]
    return found


def draw(groups: dict[str, list[list[dict[str, Any]]]], x: str, y: str) -> Figure:
    """The picture.

    Raises:
        UserError: no run has logged that column.
    """
    columns = {name for rows in groups.values() for run in rows for row in run for name in row}
    if y not in columns:
        raise unknown("column", y, columns)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    draw_curves(axis, groups, _COLUMNS[x], y)
    axis.set_xlabel({"steps": "environment steps"}.get(x, x))
    axis.set_ylabel({"rollout/ep_rew_mean": "mean return of the last training episodes"}.get(y, y))
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    prog = "python -m learner.plot"
    with one_line_errors(prog):
        command = parse(PlotCommand, sys.argv[1:] if arguments is None else arguments, None, prog, __doc__ or "")
        console, runs, refused = Console(), list[Logged](), list[UserError]()
        for run in dict.fromkeys(command.runs):
            try:
                runs.append(read(run))
            except UserError as error:
                refused.append(error)
        if not runs:
            raise refused[0]
        for reason in refused:
            say(console, f"left out: {reason}")
        groups, file = grouped(runs), io.BytesIO()
        with matplotlib.rc_context({"text.parse_math": False}):  # a name with dollars in it is no formula
            draw(groups, command.x, command.y).savefig(file, format=command.out.suffix[1:], dpi=130)
        with replacing(command.out) as temporary:
            temporary.write_bytes(file.getvalue())
        counts = ", ".join(f"{name}: {len(rows)}" for name, rows in groups.items())
        say(console, f"{command.out}: runs of {counts}")
