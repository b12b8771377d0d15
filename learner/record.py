"""``python -m learner.record runs/a runs/b@40 --to datasets/mine``: record episodes of policies, to learn from later.

python -m learner.record runs/a runs/b --episodes 2000 --to datasets/lander
python -m learner.record runs/a@40 runs/a@80 runs/a@best --epsilon 0.1 --to datasets/lander --seed 1

runs/a@40 is a version that the run has kept, with --keep-every of learner.train; runs/a@best is the one that it scored
best. Whole episodes only, as many of each policy. A second command with another seed adds to what is there, and so may
several at once. A recording that is stopped keeps what it has written.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("learner.record")

import dataclasses
import sys
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors.environments import MAX_EPISODE_STEPS, describe
from actors.errors import UserError
from actors.seeds import check_seeds
from actors.trust import require_named
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from learner.dataset.card import write_card
from learner.dataset.dataset import open_dataset
from learner.dataset.flying import require_random
from learner.dataset.recording import Pilot, record
from learner.keeping.policies import find_version


@dataclasses.dataclass(frozen=True)
class RecordCommand:
    """Record whole episodes of one or more policies."""

    policies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run directories or directories with a policy, each with @<version> or @best for another than the last."""
    to: str
    """The dataset: a path, s3://… or gs://…; one that is there is added to."""
    episodes: int = 1000
    """Episodes in all, shared evenly by the policies."""
    epsilon: float = 0.0
    """Share of actions that are uniformly random."""
    deterministic: bool = False
    """Take the most likely actions; otherwise sample from the policy."""
    seed: int = 0
    """What decides the episodes: the same command records the same ones."""
    max_episode_steps: int = MAX_EPISODE_STEPS
    """Steps after which an episode is cut where the environment sets no limit."""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Import this module if the policies' environment is module:Id-v0; none is because a policy's file names it."""

    def __post_init__(self) -> None:
        if not self.policies:
            raise UserError("which policies? Give directories of runs, as in runs/first")
        if self.episodes < len(self.policies):
            raise UserError(f"episodes must be one or more for each of {len(self.policies)} policies: {self.episodes}")
        if self.max_episode_steps < 1:
            raise UserError(f"max_episode_steps must be 1 or more, not {self.max_episode_steps}")
        check_seeds(self.seed)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    prog = "python -m learner.record"
    with one_line_errors(prog):
        command = parse(RecordCommand, sys.argv[1:] if arguments is None else arguments, None, prog, __doc__ or "")
        pilots = [Pilot(find_version(name), name, command.epsilon, command.deterministic) for name in command.policies]
        for pilot in pilots:
            require_named(pilot.policy.spec.env_id, command.module)
            require_random(pilot.policy, command.epsilon)
        describe(pilots[0].policy.spec.env_id)
        console = Console()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("episodes, {task.fields[steps]:,} steps"))
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            task = progress.add_task("", total=command.episodes, steps=0)

            def landed(episodes: int, steps: int) -> None:
                progress.advance(task, episodes)
                progress.update(task, steps=progress.tasks[task].fields["steps"] + steps)

            record(pilots, command.episodes, command.to, command.seed, command.max_episode_steps, landed)
        dataset = open_dataset(command.to)
        write_card(dataset)
        say(
            console,
            f"{dataset.location}: {dataset.num_episodes:,} episodes, {dataset.num_steps:,} steps; "
            f"returns {dataset.returns.mean():.1f} ± {dataset.returns.std():.1f}, best {dataset.returns.max():.1f}",
        )
