"""When a run had solved LunarLander: its snapshots flown greedily on Gymnasium, by one rule for every contestant."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from actors.episode import Array
from actors.evaluation import fly_episodes
from actors.policy import Policy

SEED = 10_000
QUICK_EPISODES = 10
QUICK_THRESHOLD = 120.0
"""A snapshot whose first ten episodes average less is not worth a hundred."""


def fly(policy: Policy, episodes: int, seed: int = SEED, cores: int = 2) -> Array:
    """Undiscounted returns of Gymnasium episodes, [episodes], flown by ``cores`` processes; greedy ones, unless the
    policy is made to be sampled."""
    parts = [part.tolist() for part in np.array_split(np.arange(seed, seed + episodes), cores)]
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        flown = list(pool.map(fly_episodes, [policy] * cores, parts, [not policy.spec.is_sampled] * cores))
    return np.concatenate([returns for returns, *_ in flown])


def first_solved(result: Path, snapshots: Path, threshold: float = 200.0) -> dict[str, Any] | None:
    """The earliest snapshot to average ``threshold`` over 100 episodes: its time, steps and score; None if none does.

    Args:
        result: the run's JSON, whose records tell when each snapshot was taken.
        snapshots: the run's folder of policies.
        threshold: mean return.
    """
    for record in json.loads(result.read_text())["records"]:
        if record["mean_return"] is None:
            continue
        policy = Policy.load(snapshots / f"steps-{record['steps']:010d}")
        quick, *_ = fly_episodes(policy, range(SEED, SEED + QUICK_EPISODES))
        if quick.mean() < QUICK_THRESHOLD:
            continue
        returns = fly(policy, 100)
        if returns.mean() >= threshold:
            return {**record, "mean": float(returns.mean()), "std": float(returns.std())}
    return None
