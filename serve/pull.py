"""``python -m serve.pull user/ppo-LunarLander-v3 --to runs/theirs``: fetch a published policy, and check it.

python -m serve.pull user/ppo-LunarLander-v3 --to runs/theirs
python -m serve.pull datasets/user/lander-episodes --to datasets/theirs

Only files whose names a package has are fetched, and nothing in them is ever unpickled or run.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("serve.pull")

import dataclasses
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Annotated

import tyro
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from rich.console import Console

from actors.environment_name import parse as parse_name
from actors.errors import UserError
from actors.files import read_json
from actors.policy import Policy
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from serve.hub.datasets import PREFIX, pull_dataset
from serve.hub.directories import whole_directory
from serve.hub.hub_api import check_repo_id, hub_errors
from serve.service.policies import check

_PROG = "python -m serve.pull"
_WEIGHTS = "policy.safetensors"
_ABOUT = ("README.md", "config.json", "made_by.json", "results.json", "replay.mp4", "training_curve.png")
_LIMIT, _TEXT_LIMIT = 1_000_000_000, 10_000_000
"""Bytes of a package, which has a few million, and of a JSON file in it, which has a few thousand."""


@dataclasses.dataclass(frozen=True)
class PullCommand:
    """Fetch a policy from the Hugging Face Hub into a directory that is served like a run, or a dataset."""

    repo_id: Annotated[str, tyro.conf.Positional]
    """user/name on the Hub; datasets/user/name of recorded episodes."""
    to: Path
    """The directory to make."""
    revision: str | None = None
    """A branch, tag or commit; None: main."""

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id.removeprefix(PREFIX))


def pull(repo_id: str, to: Path, revision: str | None = None) -> Policy:
    """Fetch a package into ``to``: the policy in ``to/policy``, as a run has it, and what else is known beside it.

    Returns:
        The policy.

    Raises:
        UserError: there is no such repository or no policy in it, the policy is damaged or does not fit its
            environment, or ``to`` exists. Nothing is left in ``to`` then.
        OSError: the Hub cannot be reached.
    """
    with whole_directory(to) as directory:
        fetched = directory / "fetched"
        with hub_errors(repo_id):
            _check_listing(repo_id, revision)
            snapshot_download(repo_id, revision=revision, local_dir=fetched, allow_patterns=[_WEIGHTS, *_ABOUT])
        try:
            policy = _check(fetched)
        except UserError as error:
            raise UserError(f"{repo_id}: {str(error).replace(f'{fetched}/', '')}") from error
        policy.save(directory / "policy")
        for name in _ABOUT:
            if (fetched / name).is_file():
                (fetched / name).rename(directory / name)
        shutil.rmtree(fetched)
    return policy


def _check_listing(repo_id: str, revision: str | None) -> None:
    """Look before anything is fetched: is there a policy, and is it all of a sensible size?"""
    found = HfApi().get_paths_info(repo_id, [_WEIGHTS, *_ABOUT], revision=revision)
    sizes = {entry.path: entry.size for entry in found if isinstance(entry, RepoFile)}
    if _WEIGHTS not in sizes:
        raise UserError(
            f"{repo_id} holds no policy of Touchdown's: {_WEIGHTS} is missing "
            "(a policy of Stable-Baselines3: download its zip file and use serve.import_sb3; "
            "a Decision Transformer of transformers: serve.import_transformers)"
        )
    for name, size in sizes.items():
        if name.endswith(".json") and size > _TEXT_LIMIT:
            raise UserError(f"{repo_id} has a {name} of {size / 1e6:.0f} MB, and it should have a few kB: not fetched")
    if sum(sizes.values()) > _LIMIT:
        raise UserError(f"{repo_id} has {sum(sizes.values()) / 1e9:.1f} GB, and a policy a few MB: it is not fetched")


def _check(fetched: Path) -> Policy:
    """The policy, if it is what its publisher evaluated, acts, and fits its environment."""
    policy = Policy.load(fetched)
    results = fetched / "results.json"
    if results.is_file():
        try:
            expected = read_json(results.read_bytes(), "results.json")["policy_sha256"]
        except (LookupError, TypeError) as error:
            raise UserError("results.json is damaged: it does not say which policy it is of") from error
        if hashlib.sha256((fetched / _WEIGHTS).read_bytes()).hexdigest() != expected:
            raise UserError(f"{_WEIGHTS} is not the one that was evaluated: its SHA-256 differs from results.json's")
    check(policy)
    return policy


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    disable_progress_bars()
    with one_line_errors(_PROG):
        command = parse(PullCommand, sys.argv[1:] if arguments is None else arguments, None, _PROG, __doc__ or "")
        console = Console()
        if command.repo_id.startswith(PREFIX):
            with console.status(f"fetching {command.repo_id}"):
                dataset = pull_dataset(command.repo_id.removeprefix(PREFIX), command.to, command.revision)
            say(console, f"{dataset.num_episodes:,} episodes of {dataset.env_id}: {command.to}")
            return
        with console.status(f"fetching {command.repo_id}"):
            policy = pull(command.repo_id, command.to, command.revision)
        for module in parse_name(policy.spec.env_id).modules:
            say(console, f"its environment is in module {module}: once you trust it, fly it with --module {module}")
        say(console, f"policy for {policy.spec.env_id}: {command.to / 'policy'}")
