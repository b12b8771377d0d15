"""A policy's score: flown on the cluster, and in figures and words."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError
from rich.markup import escape
from rich.table import Table

from actors.environments import MAX_EPISODE_STEPS, describe
from actors.episode import Array
from actors.errors import EnvironmentFault, UserError
from actors.evaluation import fly_episodes
from actors.policy import Policy
from actors.registration import register, registration
from actors.seeds import check_seeds
from learner.run.ray_session import start_ray

_CHUNK = 50
"""Episodes in one task."""


def evaluate(
    policy: Policy,
    episodes: int,
    seed: int,
    deterministic: bool | None = None,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> dict[str, Any]:
    """Fly ``episodes`` whole episodes, from seeds ``seed``, ``seed + 1``, …, on the Ray cluster.

    An episode is cut after ``max_episode_steps`` if the environment has no limit of its own. ``deterministic`` None: as
    the policy is meant to act.

    Returns:
        See ``score_of``.

    Raises:
        UserError: the environment cannot be made, or not where the episodes are flown; or a seed is too large.
        EnvironmentFault: the environment raised; carries its traceback.
    """
    check_seeds(seed, episodes)
    if deterministic is None:
        deterministic = not policy.spec.is_sampled
    registered = registration(policy.spec.env_id)
    start_ray()
    seeds = list(range(seed, seed + episodes))
    free = ray.available_resources().get("CPU", 0) >= 1  # of a run whose processes are kept none may be, for ever
    task: Any = ray.remote(_fly).options(num_cpus=int(free))
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
        **({} if policy.spec.target_return is None else {"target_return": policy.spec.target_return}),
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
