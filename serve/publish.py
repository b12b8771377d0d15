"""``python -m serve.publish runs/first --repo-id user/ppo-LunarLander-v3``: publish a policy on the Hugging Face Hub.

It flies the evaluation, films the replay, writes the model card, and uploads both forms of the policy with all that
is known of how it was made. The access token comes from where ``hf auth login`` keeps it, or from HF_TOKEN.

python -m serve.publish runs/first --repo-id user/ppo-LunarLander-v3
python -m serve.publish runs/first --to packages/first
python -m serve.publish datasets/lander --repo-id user/lander-episodes

A directory with recorded episodes becomes a dataset on the Hub, with its card: user/lander-episodes there is fetched by
serve.pull as datasets/user/lander-episodes.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("serve.publish")

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from rich.console import Console

from actors.environments import MAX_EPISODE_STEPS, describe
from actors.errors import UserError
from actors.evaluation import FILMED
from actors.policy import policy_directory
from actors.seeds import check_seeds
from actors.trust import require_named
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from learner.commands.signals import keeping
from learner.keeping.policies import find_policy
from learner.run.evaluation import evaluate, report
from serve.hub.datasets import is_dataset, publish_dataset
from serve.hub.directories import whole_directory
from serve.hub.hub_api import check_access, check_repo_id, upload
from serve.hub.model_card import mean_and_std
from serve.hub.package import FILES, files_of, is_package, write_package
from serve.hub.source import read_source

_PROG = "python -m serve.publish"


@dataclasses.dataclass(frozen=True)
class PublishCommand:
    """Evaluate a policy, and publish it with its card, replay and training curve."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, a directory with a policy, or a dataset."""
    repo_id: str | None = None
    """Where to: user/name on the Hub, created if there is none."""
    to: Path | None = None
    """Where the package is made; None: hub/ in the run's directory. Without --repo-id it just stays there."""
    private: bool = False
    """Only you see the repository."""
    revision: str | None = None
    """A branch to commit to, created if there is none; None: main."""
    commit_message: str | None = None
    """None: the algorithm, the environment and the score."""
    episodes: int = 100
    """Episodes to fly for the score."""
    seed: int = 10_000
    """Seed of the first episode; the others count up from it."""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Import this module if the policy's environment is module:Id-v0; none is because a policy's file names it."""
    max_episode_steps: int = MAX_EPISODE_STEPS
    """Steps after which an episode is cut where the environment sets no limit."""

    def __post_init__(self) -> None:
        policy_directory(self.run)  # may be a URI
        if self.repo_id is None and self.to is None:
            raise UserError("say where to: --repo-id user/name on the Hub, or --to a directory")
        if self.repo_id is None and (self.private or self.revision or self.commit_message):
            raise UserError("--private, --revision and --commit-message are for the Hub: give --repo-id too")
        if self.repo_id is not None:
            check_repo_id(self.repo_id)
        if self.episodes < 1:
            raise UserError(f"episodes must be 1 or more, not {self.episodes}")
        if self.max_episode_steps < 1:
            raise UserError(f"max_episode_steps must be 1 or more, not {self.max_episode_steps}")
        check_seeds(self.seed, max(self.episodes, FILMED))


def publish_episodes(command: PublishCommand, console: Console) -> None:
    """Upload a dataset.

    Raises:
        UserError: it is damaged, no repository is named, or the Hub refused it.
        OSError: the Hub cannot be reached.
    """
    if command.repo_id is None:
        raise UserError("a dataset is a directory to copy already: give --repo-id to publish it on the Hub")
    with console.status("asking the Hub whose access token this is"):
        check_access(command.repo_id, command.private, "dataset")
    with console.status(f"checking and uploading {command.run}"):
        address = publish_dataset(
            command.run,
            command.repo_id,
            private=command.private,
            revision=command.revision,
            message=command.commit_message,
        )
    say(console, f"published: {address}")


def publish(command: PublishCommand, console: Console) -> None:
    """Make the package, and upload it if a repository is named.

    Raises:
        UserError: the request cannot be met, or the Hub refused it.
        OSError: the Hub cannot be reached; the message says where the package is.
    """
    policy = find_policy(command.run)
    require_named(policy.spec.env_id, command.module)
    describe(policy.spec.env_id)
    source = read_source(command.run, policy)
    package = command.to or command.run / "hub"
    if command.repo_id:
        with console.status("asking the Hub whose access token this is"):
            check_access(command.repo_id, command.private)
    with whole_directory(package, replaceable=is_package) as directory:
        with console.status(f"flying {command.episodes} episodes"):
            is_greedy = not policy.spec.is_sampled
            score = evaluate(policy, command.episodes, command.seed, is_greedy, command.max_episode_steps)
        console.print(report(score))
        with console.status("filming the replay and writing the card"):
            notes = write_package(source, score, command.repo_id, command.revision, directory)
    for note in notes:
        say(console, note)
    files = files_of(package)
    size = sum(file.stat().st_size for file in files) / 1e6
    say(console, f"package: {package} ({len(files)} files, {size:.1f} MB)")
    if command.repo_id is None:
        return
    message = command.commit_message or f"{source.algorithm} on {policy.spec.env_id}: {mean_and_std(score)}"
    goes_on = f"the package is kept in {package}, and the same command goes on without sending anything twice"
    try:
        uploading = f"uploading {len(files)} files, {size:.1f} MB, to {command.repo_id}"
        with keeping(goes_on), console.status(uploading):
            address = upload(
                package,
                command.repo_id,
                private=command.private,
                revision=command.revision,
                message=message,
                names=FILES,
            )
    except (UserError, OSError) as error:
        raise type(error)(f"{error}; {goes_on}") from error
    say(console, f"published: {address}")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    disable_progress_bars()  # a bar for each file; one line of ours says what goes on
    with one_line_errors(_PROG):
        command = parse(PublishCommand, sys.argv[1:] if arguments is None else arguments, None, _PROG, __doc__ or "")
        (publish_episodes if is_dataset(command.run) else publish)(command, Console())
