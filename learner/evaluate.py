"""``python -m learner.evaluate runs/first``: fly a policy on Gymnasium and say how good it is.

Every episode has a seed of its own, which training did not use; they are flown in parallel on the cluster's CPUs.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import scipy.stats
import tyro
from rich.console import Console
from rich.table import Table

from actors.environments import describe
from actors.episode import Array
from actors.errors import UserError
from actors.evaluation import fly_episodes, record_video
from actors.policy import Policy
from learner.command_line import one_line_errors, parse
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
    video: Path | None = None
    """Film three episodes to this mp4 file too."""
    save: bool = True
    """Write evaluation.json beside the policy."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise UserError(f"episodes must be 1 or more, not {self.episodes}")
        if self.seed < 0:
            raise UserError(f"seed must be zero or more, not {self.seed}")


def evaluate(policy: Policy, episodes: int, seed: int, deterministic: bool = True) -> dict[str, Any]:
    """Fly ``episodes`` whole episodes, from seeds ``seed``, ``seed + 1``, …, on the Ray cluster.

    Returns:
        The figures of ``summarise``, and what was flown.
    """
    start_ray()
    seeds = list(range(seed, seed + episodes))
    task: Any = ray.remote(fly_episodes)
    reference = ray.put(policy)
    chunks = [task.remote(reference, seeds[i : i + _CHUNK], deterministic) for i in range(0, episodes, _CHUNK)]
    flown = ray.get(chunks)
    returns = np.concatenate([part[0] for part in flown])
    lengths = np.concatenate([part[1] for part in flown])
    return {
        "env_id": policy.spec.env_id,
        "policy_version": policy.spec.version,
        "n_eval_episodes": episodes,
        "first_seed": seed,
        "is_deterministic": deterministic,
        **summarise(returns, describe(policy.spec.env_id).reward_threshold),
        "mean_ep_length": float(lengths.mean()),
        "eval_datetime": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def summarise(returns: Array, reward_threshold: float | None) -> dict[str, Any]:
    """What a careful reader asks of a set of episode returns.

    Args:
        returns: [n], undiscounted.
        reward_threshold: the environment's own; None where it has none.

    Returns:
        Mean, standard deviation, mean − std, median, interquartile mean with a 95% percentile-bootstrap interval
        (Agarwal et al. 2021), worst and best, and the share of episodes at or over the threshold.
    """
    iqm = float(scipy.stats.trim_mean(returns, 0.25))
    interval = [iqm, iqm]
    if len(returns) > 1 and np.ptp(returns) > 0:
        bootstrap = scipy.stats.bootstrap(
            (returns,),
            lambda sample, axis: scipy.stats.trim_mean(sample, 0.25, axis=axis),
            n_resamples=2000,
            method="percentile",
            random_state=np.random.default_rng(0),
        )
        interval = [float(bootstrap.confidence_interval.low), float(bootstrap.confidence_interval.high)]
    mean, std = float(returns.mean()), float(returns.std())
    return {
        "mean_reward": mean,
        "std_reward": std,
        "mean_minus_std": mean - std,
        "median_reward": float(np.median(returns)),
        "iqm_reward": iqm,
        "iqm_interval_95": interval,
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
    table = Table(title=title, show_header=False)
    low, high = score["iqm_interval_95"]
    table.add_row("mean ± std", f"{score['mean_reward']:.1f} ± {score['std_reward']:.1f}")
    table.add_row("mean − std", f"{score['mean_minus_std']:.1f}")
    table.add_row("median", f"{score['median_reward']:.1f}")
    table.add_row("interquartile mean, 95% interval", f"{score['iqm_reward']:.1f} ({low:.1f} to {high:.1f})")
    table.add_row("worst, best", f"{score['worst_reward']:.1f}, {score['best_reward']:.1f}")
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
        describe(policy.spec.env_id)
        console = Console()
        with console.status("flying"):
            score = evaluate(policy, command.episodes, command.seed, command.deterministic)
        console.print(report(score))
        if command.save:
            open_storage(command.run).write("evaluation.json", json_bytes(score))
        if command.video:
            with console.status("filming"):
                record_video(policy, command.video, command.seed)
            console.print(f"video: {command.video}")


if __name__ == "__main__":
    main()
