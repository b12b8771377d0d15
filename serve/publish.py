"""``python -m serve.publish runs/first --repo-id user/ppo-LunarLander-v3``: publish a policy on the Hugging Face Hub.

It flies the evaluation, films the replay, writes the model card, and uploads both forms of the policy with all that
is known of how it was made. The access token comes from where ``hf auth login`` keeps it, or from HF_TOKEN.

python -m serve.publish runs/first --repo-id user/ppo-LunarLander-v3
python -m serve.publish runs/first --to packages/first
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from rich.console import Console

from actors.environments import describe
from actors.errors import UserError
from actors.policy import policy_directory
from learner.command_line import one_line_errors, parse
from learner.evaluate import evaluate, find_policy, report
from serve.directories import whole_directory
from serve.hub import check_access, check_repo_id, upload
from serve.model_card import mean_and_std
from serve.package import FILES, files_of, is_package, read_source, write_package

_PROG = "python -m serve.publish"


@dataclasses.dataclass(frozen=True)
class PublishCommand:
    """Evaluate a policy, and publish it with its card, replay and training curve."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a directory with a policy."""
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
        if self.seed < 0:
            raise UserError(f"seed must be zero or more, not {self.seed}")


def publish(command: PublishCommand, console: Console) -> None:
    """Make the package, and upload it if a repository is named.

    Raises:
        UserError: the request cannot be met, or the Hub refused it.
        OSError: the Hub cannot be reached; the message says where the package is.
    """
    policy = find_policy(command.run)
    describe(policy.spec.env_id)
    source = read_source(command.run, policy)
    package = command.to or command.run / "hub"
    if command.repo_id:
        with console.status("asking the Hub whose access token this is"):
            check_access(command.repo_id, command.private)
    with whole_directory(package, replaceable=is_package) as directory:
        with console.status(f"flying {command.episodes} episodes"):
            score = evaluate(policy, command.episodes, command.seed)
        console.print(report(score))
        with console.status("filming the replay and writing the card"):
            notes = write_package(source, score, command.repo_id, command.revision, directory)
    for note in notes:
        console.print(note, highlight=False)
    files = files_of(package)
    size = sum(file.stat().st_size for file in files) / 1e6
    console.print(f"package: {package} ({len(files)} files, {size:.1f} MB)", highlight=False, soft_wrap=True)
    if command.repo_id is None:
        return
    message = command.commit_message or f"{source.algorithm} on {policy.spec.env_id}: {mean_and_std(score)}"
    try:
        with console.status(f"uploading {len(files)} files, {size:.1f} MB, to {command.repo_id}"):
            address = upload(
                package,
                command.repo_id,
                private=command.private,
                revision=command.revision,
                message=message,
                names=FILES,
            )
    except (UserError, OSError) as error:
        kept = f"{error}; the package is kept in {package}, and the same command goes on without sending anything twice"
        raise type(error)(kept) from error
    console.print(f"published: {address}", highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    disable_progress_bars()  # a bar for each file; one line of ours says what goes on
    with one_line_errors(_PROG):
        command = parse(PublishCommand, sys.argv[1:] if arguments is None else arguments, None, _PROG, __doc__ or "")
        publish(command, Console())


if __name__ == "__main__":
    main()
