"""Recorded episodes of an environment in which each of eight steps earns its action, 0 or 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actors.environments import describe
from actors.episode import EpisodeBatch
from learner.dataset.writer import DatasetWriter

TALLY = "tests.actors.fake_environments:Tally-v0"
STEPS = 8


def tallies(count: int, seed: int = 0, most: float = 1.0) -> EpisodeBatch:
    """Episodes of random actions, of which a share is ones that is uniform up to ``most``: 1, and returns are, too."""
    rng = np.random.default_rng(seed)
    actions = (rng.random((count, STEPS)) < most * rng.random((count, 1))).astype(np.int64)
    rewards = actions.astype(np.float32)
    return EpisodeBatch(
        observations=np.tile(np.arange(STEPS, dtype=np.float32), count)[:, None],
        actions=actions.ravel(),
        rewards=rewards.ravel(),
        notes={},
        segment_lengths=np.full(count, STEPS, np.int32),
        final_observations=np.full((count, 1), STEPS, np.float32),
        terminated=np.ones(count, bool),
        truncated=np.zeros(count, bool),
        policy_version=np.zeros(count, np.int64),
        episode_returns=rewards.sum(1).astype(np.float64),
        episode_lengths=np.full(count, STEPS),
    )


def write_tallies(path: Path, count: int, most: float = 1.0) -> Path:
    """A dataset of that many."""
    info = describe(TALLY)
    writer = DatasetWriter(path, TALLY, info.observation, info.action, "test")
    writer.add(tallies(count, most=most), {"policy": "chance"})
    writer.close()
    return path
