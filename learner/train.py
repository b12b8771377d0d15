"""``python -m learner.train``: train an agent; ``--help`` lists every option with its default.

python -m learner.train --preset ppo --env LunarLander-v3 --target-return 200 --run-dir runs/first
python -m learner.train --resume runs/first

The exit status is 0 when the run has ended, 3 when it ended without its target return, 1 when it failed, 2 when the
command is wrong, and 128 + the number of a signal that stopped it. result.json in the run's directory says more.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("learner.train")

import argparse
import contextlib
import dataclasses
import logging
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro
from ray.exceptions import RayTaskError
from rich.console import Console

from actors.environment_name import named
from actors.environment_name import parse as parse_name
from actors.environments import describe
from actors.errors import UserError
from actors.evaluation import record_video
from learner.algorithms.registry import name_of
from learner.commands.command_line import fail, one_line_errors, parse, require_text
from learner.commands.console import say
from learner.commands.signals import EndedBySignal, ended_by, keeping
from learner.dataset.card import write_card
from learner.dataset.config import recorded_environment
from learner.dataset.dataset import open_dataset
from learner.keeping.policies import find_policy
from learner.run.callback import Callback
from learner.run.config import TrainConfig, read_config, with_algorithm
from learner.run.evaluation import evaluate, report
from learner.run.films import Films
from learner.run.initial import read_initial, with_network_of
from learner.run.learner_group import LearnerLostError
from learner.run.presets import preset
from learner.run.progress import ProgressDisplay, log_to
from learner.run.result import Result
from learner.run.run_directory import RunDirectory, json_bytes
from learner.run.telemetry import Telemetry
from learner.run.trainer import Trainer
from learner.run.tuned import Tuned, tuned_for, with_tuned

log = logging.getLogger("touchdown")

_PROG = "python -m learner.train"
_MORE = "a larger budget, such as --total-timesteps, or another --target-return has it go on"
_MAY_CHANGE = ("stop", "evaluation", "checkpoint", "placement")
"""Groups of options that a run may go on with others of: they change nothing of how it learns."""


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train an agent on LunarLander or another Gymnasium environment."""

    preset: str = "ppo"
    """Where the options start from. Policy gradients: vpg, bpg, epg, cpg, aac, a2c, ppo, impala; by value: q_learning,
    sarsa, expected_sarsa, nature_dqn, double_dqn, dueling_dqn, prioritized_dqn, dqn, qrdqn, pqn, sac. From pictures:
    doom, atari. From recordings (--dataset): bc, cql, dt."""
    algorithm: str | None = None
    """policy_gradient, ppo, tabular, dqn, pqn, sac, bc, cql, dt, or your own as package.module:Class, whose options
    join these; None: the preset's."""
    config: Path | None = None
    """A JSON file of options, a whole config.json or a part of one, over the preset's and under the command line's."""
    tuned: bool = True
    """Begin with the best settings that are known of the preset on this environment, where there are any."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, name=value each: enable_wind=True wind_power=15."""
    wrappers: tuple[str, ...] = ()
    """Wrappers around it, the innermost first: Gymnasium's by name, or package.module:Class; 'Scale(factor=2)' with
    arguments."""
    run_dir: str | None = None
    """Where the run is kept: a path, s3://… or gs://…; None: runs/<preset>-<env>-<time>."""
    resume: str | None = None
    """Go on with the run in this directory; its own configuration holds, but for options of stop, evaluation,
    checkpoint and placement given here, and --dataset where the recordings were moved."""
    init_from: str | None = None
    """Start from the policy in this directory (a run, a package, an imported one), its network, and its critic if there
    is one; everything else is as the options say, another environment of the same spaces too."""
    go_on: bool = False
    """Resume --run-dir if it holds a run, else begin it: for jobs that are started again when their machine is lost."""
    evaluate_episodes: int = 100
    """Gymnasium episodes flown at the end for evaluation.json; 0: none. A run that is stopped flies none."""
    video: bool = True
    """Film the final policy to replay.mp4, unless the run is stopped."""
    video_every: int | None = None
    """Film the policy beside training every so many steps that were flown or, of recordings, learned from: videos/ in
    the run's directory; None: it is not."""
    missed_status: int = 3
    """Exit status if the run ends without its target return; 0 for a supervisor that starts again what fails."""
    options: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()
    """The run itself."""

    def __post_init__(self) -> None:
        if not 0 <= self.missed_status <= 255:
            raise UserError(f"missed_status must lie between 0 and 255, not {self.missed_status}")


def read_command(arguments: list[str]) -> TrainCommand:
    """The command line, over its ``--config`` file, over its ``--preset`` or the run it resumes.

    Raises:
        UserError: something in them is wrong.
    """
    require_text(arguments)
    arguments = [re.sub(r"^--[\w-]+", lambda option: option[0].replace("_", "-"), word) for word in arguments]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--algorithm", "--config", "--env", "--resume", "--run-dir", "--init-from", "--dataset"):
        first.add_argument(name, default=None)
    for name in ("--go-on", "--no-tuned"):
        first.add_argument(name, action="store_true")
    try:
        known, _ = first.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    resume = known.resume
    if "" in (known.resume, known.run_dir, known.init_from):
        raise UserError("--resume, --run-dir and --init-from take a directory; an empty name was given")
    if known.resume and known.init_from:
        raise UserError("--resume goes on with the run's own policy: leave --init-from out")
    if known.go_on and not (known.run_dir or known.resume):
        raise UserError("--go-on needs --run-dir: a run without a name of its own is never found again")
    if known.go_on and known.run_dir and RunDirectory(known.run_dir).exists():
        resume = known.run_dir
    stored = RunDirectory(resume).config() if resume else None
    base = stored or preset(known.preset or "ppo")
    file = known.config if known.config not in (None, "None") else None
    env = known.env or (read_config(file, base) if file else base).env
    if known.dataset not in (None, "None") and not known.env and not stored:
        env = recorded_environment(known.dataset)
        base = dataclasses.replace(base, env=env)
    algorithm = known.algorithm if known.algorithm not in (None, "None") else name_of(base.algorithm)
    if not (resume or known.no_tuned) and (tuned := _settings(known.preset or "ppo", algorithm, env)):
        base = with_tuned(base, tuned, env)
    if file:
        base = read_config(file, base)
    if known.init_from and not resume:
        base = with_network_of(find_policy(known.init_from), base)
    options = with_algorithm(base, known.algorithm) if known.algorithm not in (None, "None") else base
    command = parse(
        tyro.conf.OmitArgPrefixes[TrainCommand], arguments, TrainCommand(options=options), _PROG, __doc__ or ""
    )
    if command.video_every is not None and command.video_every < 1:
        raise UserError(f"video_every must be 1 or more, or None, not {command.video_every}")
    if command.evaluate_episodes < 0:
        raise UserError(f"evaluate_episodes must be zero or more, not {command.evaluate_episodes}")
    more = command.env_kwargs or command.wrappers
    bare = preset(command.preset).env if stored and more and command.options.env == stored.env else command.options.env
    env = named(bare, command.env_kwargs, command.wrappers)
    command = dataclasses.replace(command, resume=resume, options=dataclasses.replace(command.options, env=env))
    if stored:
        command = dataclasses.replace(command, options=_going_on(command.options, stored))
    if command.resume and command.run_dir not in (None, command.resume):
        raise UserError("--resume goes on in the run's own directory: leave --run-dir out")
    if idle := _idle(command.options, options):
        log.warning("%s: changes nothing, as the other options stand", ", ".join(idle))
    return command


def _idle(asked: TrainConfig, base: TrainConfig) -> list[str]:
    """Options of the algorithm that were given, and that do nothing beside the others."""
    algorithm, before = asked.algorithm, base.algorithm
    given = [name for name in algorithm.idle_options if getattr(algorithm, name) not in (None, getattr(before, name))]
    return sorted(f"--{name.replace('_', '-')}" for name in given)


def _settings(name: str, algorithm: str, env: str) -> Tuned | None:
    """The settings that are known of a preset on an environment; None: there are none, or the algorithm is another."""
    return tuned_for(name, env) if algorithm == name_of(preset(name).algorithm) else None


def _going_on(asked: TrainConfig, stored: TrainConfig) -> TrainConfig:
    """What a run goes on with: its own configuration, but for what is asked for that changes nothing of how it learns,
    and where its dataset is.

    Raises:
        UserError: something else is asked for than it was begun with.
    """
    if asked.env != stored.env and describe(asked.env).env_id == stored.env:
        asked = dataclasses.replace(asked, env=stored.env)
    if stored.dataset.dataset and asked.dataset.dataset:  # whose episodes are compared when they are read
        stored = dataclasses.replace(stored, dataset=dataclasses.replace(stored.dataset, dataset=asked.dataset.dataset))
    changed = [
        field.name
        for field in dataclasses.fields(stored)
        if field.name not in _MAY_CHANGE and getattr(asked, field.name) != getattr(stored, field.name)
    ]
    if changed:
        raise UserError(
            f"--resume keeps the run's configuration; options of {', '.join(_MAY_CHANGE)} can change, "
            f"not {', '.join(changed)}"
        )
    return asked


def finish(result: Result, command: TrainCommand, console: Console) -> None:
    """Evaluate the final policy, film it, describe what was recorded. Training is done: what fails here is a note."""
    if command.options.record:
        with noted("recording", console):
            dataset = open_dataset(result.directory.recorded)
            write_card(dataset)
            say(console, f"recorded: {dataset.location}, {dataset.num_episodes:,} episodes")
    if command.evaluate_episodes:
        with noted("evaluation", console), console.status("flying the evaluation on Gymnasium"):
            limit = command.options.rollout.max_episode_steps
            score = evaluate(result.policy, command.evaluate_episodes, seed=10_000, max_episode_steps=limit)
            result.directory.storage.write("evaluation.json", json_bytes(score))
            console.print(report(score))
    if command.video:
        with noted("video", console), console.status("filming"), tempfile.TemporaryDirectory() as temporary:
            video = Path(temporary) / "replay.mp4"
            record_video(result.policy, video, seed=10_000)
            result.directory.storage.write(video.name, video.read_bytes())
            say(console, f"video: {result.directory}/replay.mp4")
    say(console, f"policy: {result.directory}/policy")


@contextlib.contextmanager
def noted(what: str, console: Console) -> Iterator[None]:
    """Say in a line why there is none of what is optional, whatever an environment raised."""
    try:
        yield
    except Exception as error:
        if ended := ended_by(error):
            raise ended from None
        last = (str(error).strip().splitlines() or [""])[-1]
        say(console, f"no {what}: {last or type(error).__name__}")


def what_is_kept(trainer: Trainer) -> str:
    """How to go on after a signal, in words."""
    run = shlex.quote(str(trainer.directory))
    if not trainer.directory.exists():
        return "there was no update yet, and nothing is left"
    return f"go on with --resume {run}, or see how far it came with python -m learner.evaluate {run}"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    console = Console()
    log_to(console)
    with one_line_errors(_PROG):
        command = read_command(sys.argv[1:] if arguments is None else arguments)
        name = f"{command.preset}-{parse_name(command.options.env).slug}-{time.strftime('%Y%m%d-%H%M%S')}"
        run_dir = command.resume or command.run_dir or f"runs/{name}"
        display = ProgressDisplay(console)
        resume = command.resume is not None
        initial = read_initial(command.init_from) if command.init_from and not resume else None
        options = command.options
        asked = command.tuned and not resume
        tuned = _settings(command.preset, name_of(options.algorithm), options.env) if asked else None
        callbacks: list[Callback] = [display, Telemetry()]
        if command.video_every:
            callbacks.append(Films(command.video_every))
        trainer = Trainer(command.options, run_dir, command.preset, resume, callbacks, initial=initial)
        if tuned:
            say(
                console, f"{command.preset} on {trainer.config.env}: settings from {tuned.origin} (--no-tuned: without)"
            )
        if trainer.ended:
            steps = f"{trainer.ended.counters.total_timesteps:,} steps"
            say(console, f"{run_dir} has ended ({trainer.ended.outcome}, {steps}): {_MORE}")
        try:
            result = trainer.run()
        except (KeyboardInterrupt, UserError, RayTaskError, LearnerLostError) as error:
            display.close()
            ended = ended_by(error)
            if trainer.signal and not ended:  # it may well be the signal's doing, when Ray's processes got it too
                ended = EndedBySignal(trainer.signal)
            if ended:
                ended.kept = what_is_kept(trainer)
                raise ended from None
            fail(_PROG, error, 2 if isinstance(error, UserError) else 1)
        finally:
            display.close()
        if trainer.signal:
            raise EndedBySignal(trainer.signal, what_is_kept(trainer))
        lost_in_evaluation = command.evaluate_episodes > 0 and not trainer.directory.is_evaluated()
        if not trainer.ended or lost_in_evaluation:
            with keeping(f"the run is done, and its policy in {result.directory}/policy"):
                finish(result, command, console)
        if result.missed:
            sys.exit(command.missed_status)
