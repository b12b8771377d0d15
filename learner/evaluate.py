"""``python -m learner.evaluate runs/first``: fly a policy on Gymnasium and say how good it is.

Every episode has a seed of its own, which training did not use; they are flown in parallel on the cluster's CPUs.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.signals import run_command

    run_command("learner.evaluate")

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import tyro
from ray.exceptions import RayTaskError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.environments import MAX_EPISODE_STEPS, describe
from actors.episode import Array
from actors.errors import EnvironmentFault, UserError
from actors.evaluation import FILMED, fly_episodes, record_video
from actors.policy import Policy
from actors.registration import register, registration
from actors.seeds import check_seeds
from actors.trust import require_named
from learner.command_line import one_line_errors, parse
from learner.console import say
from learner.ray_session import start_ray
from learner.run_directory import json_bytes
from learner.storage import open_storage

_CHUNK = 50
"""Episodes in one task."""


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Fly a trained policy on Gymnasium and report its score."""

    run: Annotated[str, tyro.conf.Positional]
    """A run directory, or a directory with a policy: a path, s3://… or gs://…"""
    episodes: int = 100
    """Episodes to fly."""
    seed: int = 10_000
    """Seed of the first episode; the others count up from it."""
    deterministic: bool = True
    """Take the most likely action; otherwise sample from the policy."""
    max_episode_steps: int = MAX_EPISODE_STEPS
    """Steps after which an episode is cut where the environment sets no limit."""
    video: Path | None = None
    """Film three episodes to this mp4 file too."""
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


def evaluate(
    policy: Policy,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> dict[str, Any]:
    """Fly ``episodes`` whole episodes, from seeds ``seed``, ``seed + 1``, …, on the Ray cluster.

    An episode is cut after ``max_episode_steps`` if the environment has no limit of its own.

    Returns:
        See ``score_of``.

    Raises:
        UserError: the environment cannot be made, or not where the episodes are flown; or a seed is too large.
        EnvironmentFault: the environment raised; carries its traceback.
    """
    check_seeds(seed, episodes)
    registered = registration(policy.spec.env_id)
    start_ray()
    seeds = list(range(seed, seed + episodes))
    task: Any = ray.remote(_fly)
    reference = ray.put(policy)
    chunks = [
        task.remote(reference, seeds[i : i + _CHUNK], deterministic, max_episode_steps, registered)
        for i in range(0, episodes, _CHUNK)
    ]
    try:
        flown = ray.get(chunks)
    except RayTaskError as error:
        if isinstance(error.cause, EnvironmentFault | UserError):
            raise error.cause from None
        raise
    returns, lengths, cut = (np.concatenate(column) for column in zip(*flown, strict=True))
    return score_of(policy, returns, lengths, cut, seed, deterministic)


def score_of(
    policy: Policy, returns: Array, lengths: Array, cut: Array, first_seed: int, deterministic: bool
) -> dict[str, Any]:
    """What evaluation.json holds: the figures of ``summarise``, and what was flown.

    Args:
        policy: who flew.
        returns: [n], undiscounted, of the episodes from seeds ``first_seed``, ``first_seed + 1``, …
        lengths: [n], in steps.
        cut: [n], whether a time limit ended them.
        first_seed: of the first episode.
        deterministic: whether it took the most likely actions.
    """
    return {
        "env_id": policy.spec.env_id,
        "policy_version": policy.spec.version,
        "n_eval_episodes": len(returns),
        "first_seed": first_seed,
        "is_deterministic": deterministic,
        **summarise(returns, describe(policy.spec.env_id).reward_threshold),
        "mean_ep_length": float(lengths.mean()),
        "n_truncated": int(cut.sum()),
        "eval_datetime": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _fly(
    policy: Policy, seeds: list[int], deterministic: bool, max_episode_steps: int, registered: bytes | None
) -> tuple[Array, Array, Array]:
    """``fly_episodes`` in a process of its own."""
    register(policy.spec.env_id, registered)
    return fly_episodes(policy, seeds, deterministic, max_episode_steps=max_episode_steps)


def summarise(returns: Array, reward_threshold: float | None) -> dict[str, Any]:
    """What a careful reader asks of a set of episode returns.

    Args:
        returns: [n], undiscounted.
        reward_threshold: the environment's own; None where it has none.

    Returns:
        Mean, standard deviation, mean − std, median, worst and best, and the share of episodes at or over the
        threshold. No episode is trimmed: crashes count.
    """
    mean, std = float(returns.mean()), float(returns.std())
    return {
        "mean_reward": mean,
        "std_reward": std,
        "mean_minus_std": mean - std,
        "median_reward": float(np.median(returns)),
        "worst_reward": float(returns.min()),
        "best_reward": float(returns.max()),
        "reward_threshold": reward_threshold,
        "share_over_threshold": None if reward_threshold is None else float((returns >= reward_threshold).mean()),
    }


def report(score: dict[str, Any]) -> Table:
    """The score as a table to read."""
    how = "greedy" if score["is_deterministic"] else "sampled"
    title = (
        f"{score['n_eval_episodes']} {how} episodes of {score['env_id']} (Gymnasium), seeds from {score['first_seed']}"
    )
    table = Table(title=escape(title), show_header=False, min_width=len(title))  # a title wraps to its table's width
    table.add_row("mean ± std", f"{score['mean_reward']:.1f} ± {score['std_reward']:.1f}")
    table.add_row("mean − std", f"{score['mean_minus_std']:.1f}")
    table.add_row("median", f"{score['median_reward']:.1f}")
    table.add_row("worst, best", f"{score['worst_reward']:.1f}, {score['best_reward']:.1f}")
    if score["n_truncated"]:
        table.add_row("cut by a time limit", f"{score['n_truncated']} of {score['n_eval_episodes']}")
    if score["reward_threshold"] is not None:
        table.add_row(f"episodes at {score['reward_threshold']:g} or more", f"{score['share_over_threshold']:.0%}")
    return table


def find_policy(location: str | Path) -> Policy:
    """The policy of a run, or of a directory that holds just one.

    Raises:
        UserError: there is none, or it is damaged.
    """
    storage = open_storage(location)
    if "policy" in storage.names():
        storage = storage.within("policy")
    try:
        data = storage.read("policy.safetensors")
    except FileNotFoundError as error:
        raise UserError(f"no policy in {storage}: policy.safetensors is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {storage}: {error.strerror or error}") from error
    return Policy.parse(data, f"{storage}/policy.safetensors")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    prog = "python -m learner.evaluate"
    with one_line_errors(prog):
        command = parse(EvaluateCommand, sys.argv[1:] if arguments is None else arguments, None, prog, __doc__ or "")
        policy = find_policy(command.run)
        require_named(policy.spec.env_id, command.module)
        describe(policy.spec.env_id)
        console = Console()
        with console.status("flying"):
            score = evaluate(policy, command.episodes, command.seed, command.deterministic, command.max_episode_steps)
        console.print(report(score))
        if command.save:
            open_storage(command.run).write("evaluation.json", json_bytes(score))
        if command.video:
            with console.status("filming"):
                record_video(policy, command.video, command.seed)
            say(console, f"video: {command.video}")
