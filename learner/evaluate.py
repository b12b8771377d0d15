"""``python -m learner.evaluate runs/first``: fly a policy on Gymnasium and say how good it is.

Every episode has a seed of its own, which training did not use; they are flown in parallel on the cluster's CPUs.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("learner.evaluate")

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from actors.environments import MAX_EPISODE_STEPS, describe
from actors.errors import UserError
from actors.evaluation import FILMED, record_video
from actors.policy import Policy
from actors.seeds import check_seeds
from actors.trust import require_named
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from learner.keeping.policies import find_policy
from learner.keeping.storage import open_storage
from learner.run.evaluation import evaluate, report
from learner.run.run_directory import json_bytes
from learner.run.targets import figure_of_targets, report_targets


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Fly a trained policy on Gymnasium and report its score."""

    run: Annotated[str, tyro.conf.Positional]
    """A run directory, or a directory with a policy: a path, s3://… or gs://…"""
    episodes: int = 100
    """Episodes to fly."""
    seed: int = 10_000
    """Seed of the first episode; the others count up from it."""
    deterministic: bool | None = None
    """Take the most likely action, or sample from the policy (--no-deterministic); None: as the policy is meant to
    act, which is to sample where it acts for a return."""
    target_return: tuple[float, ...] = ()
    """Returns to ask for one after another, of a policy that acts for one; none: the policy's own."""
    max_episode_steps: int = MAX_EPISODE_STEPS
    """Steps after which an episode is cut where the environment sets no limit."""
    video: Path | None = None
    """Film three episodes to this mp4 file too, for the last of the returns that are asked for."""
    save: bool = True
    """Write evaluation.json beside the policy."""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Import this module if the policy's environment is module:Id-v0; none is because a policy's file names it."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise UserError(f"episodes must be 1 or more, not {self.episodes}")
        if self.max_episode_steps < 1:
            raise UserError(f"max_episode_steps must be 1 or more, not {self.max_episode_steps}")
        check_seeds(self.seed, max(self.episodes, FILMED))


def _with_values(arguments: list[str]) -> list[str]:
    """Arguments in which the flags --deterministic and --no-deterministic have the value that they stand for."""
    given: list[str] = []
    for word, following in itertools.zip_longest(arguments, arguments[1:]):
        if word == "--no-deterministic":
            given += ["--deterministic", "False"]
        elif word == "--deterministic" and following not in ("None", "True", "False"):
            given += [word, "True"]
        else:
            given.append(word)
    return given


def _compare(
    asked: list[Policy], how: tuple[int, int, bool | None, int], command: EvaluateCommand, console: Console
) -> None:
    """Fly for each of the returns that are asked for; beside the policy targets.json and a figure, targets.png."""
    scores = []
    for policy in asked:
        with console.status(f"flying for a return of {policy.spec.target_return:g}"):
            scores.append(evaluate(policy, *how))
    console.print(report_targets(scores))
    if command.save:
        storage = open_storage(command.run)
        storage.write("targets.json", json_bytes(scores))
        storage.write("targets.png", figure_of_targets(scores))
        say(console, f"figure: {command.run}/targets.png")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    prog = "python -m learner.evaluate"
    with one_line_errors(prog):
        given = _with_values(sys.argv[1:] if arguments is None else arguments)
        command = parse(EvaluateCommand, given, None, prog, __doc__ or "")
        policy = find_policy(command.run)
        require_named(policy.spec.env_id, command.module)
        describe(policy.spec.env_id)
        console = Console()
        asked = [policy.asked_for(target) for target in command.target_return]
        how = (command.episodes, command.seed, command.deterministic, command.max_episode_steps)
        if asked:
            _compare(asked, how, command, console)
        else:
            with console.status("flying"):
                score = evaluate(policy, *how)
            console.print(report(score))
            if command.save:
                open_storage(command.run).write("evaluation.json", json_bytes(score))
        if command.video:
            with console.status("filming"):
                filmed = asked[-1] if asked else policy
                record_video(filmed, command.video, command.seed, deterministic=command.deterministic)
            say(console, f"video: {command.video}")
