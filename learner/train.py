"""``python -m learner.train``: train an agent; ``--help`` lists every option with its default.

python -m learner.train --preset ppo --env LunarLander-v3 --target-return 200 --run-dir runs/first
python -m learner.train --resume runs/first
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import tyro
from ray.exceptions import RayTaskError
from rich.console import Console

from actors.errors import UserError
from actors.evaluation import record_video
from learner.command_line import fail, one_line_errors, parse
from learner.config import TrainConfig, read_config
from learner.evaluate import evaluate, report
from learner.learner_group import LearnerLostError
from learner.presets import preset
from learner.progress import ProgressDisplay, log_to
from learner.run_directory import RunDirectory, json_bytes
from learner.telemetry import Telemetry
from learner.trainer import Result, Trainer

_PROG = "python -m learner.train"


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train an agent on LunarLander or any Gymnasium environment with Box observations."""

    preset: str = "ppo"
    """Where the options start from: vpg, bpg, epg, cpg, aac, a2c, ppo or impala."""
    config: Path | None = None
    """A JSON file of options, a whole config.json or a part of one, over the preset's and under the command line's."""
    run_dir: str | None = None
    """Where the run is kept: a path, s3://… or gs://…; None: runs/<preset>-<env>-<time>."""
    resume: str | None = None
    """Go on with the run in this directory; its own configuration holds, but for --stop options given here."""
    go_on: bool = False
    """Resume --run-dir if it holds a run, else begin it: for jobs that are started again when their machine is lost."""
    evaluate_episodes: int = 100
    """Gymnasium episodes flown at the end for evaluation.json; 0: none."""
    video: bool = True
    """Film the final policy to replay.mp4."""
    options: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()
    """The run itself."""


def read_command(arguments: list[str]) -> TrainCommand:
    """The command line, over its ``--config`` file, over its ``--preset`` or the run it resumes.

    Raises:
        UserError: something in them is wrong.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--config", "--resume", "--run-dir"):
        first.add_argument(name, default=None)
    first.add_argument("--go-on", action="store_true")
    try:
        known, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    resume = known.resume
    if "" in (known.resume, known.run_dir):
        raise UserError("--resume and --run-dir take a directory; an empty name was given")
    if known.go_on and not (known.run_dir or known.resume):
        raise UserError("--go-on needs --run-dir: a run without a name of its own is never found again")
    if known.go_on and known.run_dir and RunDirectory(known.run_dir).exists():
        resume = known.run_dir
    base = RunDirectory(resume).config() if resume else preset(known.preset or "ppo")
    if known.config and known.config != "None":
        base = read_config(known.config, base)
    command = parse(
        tyro.conf.OmitArgPrefixes[TrainCommand], arguments, TrainCommand(options=base), _PROG, __doc__ or ""
    )
    if command.evaluate_episodes < 0:
        raise UserError(f"evaluate_episodes must be zero or more, not {command.evaluate_episodes}")
    command = dataclasses.replace(command, resume=resume)
    if command.resume and dataclasses.replace(command.options, stop=base.stop) != base:
        changed = [
            field.name
            for field in dataclasses.fields(base)
            if field.name != "stop" and getattr(command.options, field.name) != getattr(base, field.name)
        ]
        raise UserError(
            f"--resume keeps the run's configuration; only stop options can change, not {', '.join(changed)}"
        )
    if command.resume and command.run_dir not in (None, command.resume):
        raise UserError("--resume goes on in the run's own directory: leave --run-dir out")
    return command


def finish(result: Result, command: TrainCommand, console: Console) -> None:
    """Evaluate the final policy and film it."""
    if command.evaluate_episodes:
        with console.status("flying the evaluation on Gymnasium"):
            score = evaluate(result.policy, command.evaluate_episodes, seed=10_000)
        result.directory.storage.write("evaluation.json", json_bytes(score))
        console.print(report(score))
    if command.video:
        with console.status("filming"), tempfile.TemporaryDirectory() as temporary:
            video = Path(temporary) / "replay.mp4"
            record_video(result.policy, video, seed=10_000)
            result.directory.storage.write(video.name, video.read_bytes())
        console.print(f"video: {result.directory}/replay.mp4", highlight=False)
    console.print(f"policy: {result.directory}/policy", highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    console = Console()
    log_to(console)
    with one_line_errors(_PROG):
        command = read_command(sys.argv[1:] if arguments is None else arguments)
        name = f"{command.preset}-{command.options.env.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
        run_dir = command.resume or command.run_dir or f"runs/{name}"
        display = ProgressDisplay(console)
        resume = command.resume is not None
        trainer = Trainer(command.options, run_dir, command.preset, resume, [display, Telemetry()])
        try:
            result = trainer.run()
        except (RayTaskError, LearnerLostError) as error:
            display.close()
            fail(_PROG, error, 1)
        finally:
            display.close()
        finish(result, command, console)


if __name__ == "__main__":
    main()
