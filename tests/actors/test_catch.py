"""Catch: the same boards, rewards and lengths as EnvPool's, for whatever the paddle does."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from actors import envpool_families
from actors.check_env import try_out
from actors.environments import describe
from actors.making import make_gymnasium
from actors.vectors import EnvPoolEnvironments, make_environments

BALLS = 100


def dropped(env_id: str, column: int) -> gymnasium.Env[Any, Any]:
    """Ours, at the beginning of an episode in which the ball falls in this column."""
    env = make_gymnasium(env_id)
    for seed in range(1000):
        board, _ = env.reset(seed=seed)
        if board[0].argmax() == column:
            return env
    raise AssertionError(f"no ball falls in column {column}")


@pytest.mark.parametrize("env_id", ["Catch-v0", "Catch-v0(height=6, width=8)"])
def test_dynamics_are_envpools(env_id: str) -> None:
    info = describe(env_id)
    height, width = info.observation_space.shape
    assert envpool_families.has("Catch-v0")
    there, _ = envpool_families.spaces("Catch-v0", height=height, width=width)
    assert there == info.observation_space
    environments = EnvPoolEnvironments(info, BALLS, 0)
    boards = environments.reset()
    columns = boards[:, 0].argmax(1).tolist()
    assert {*columns} == {*range(width)}
    ours = [dropped(env_id, column) for column in columns]
    rng = np.random.default_rng(0)
    for step in range(1, height):
        actions = rng.integers(3, size=BALLS)
        columns_of = environments.step(actions, np.arange(BALLS))
        mine = zip(*(env.step(action)[:4] for env, action in zip(ours, actions, strict=True)), strict=True)
        for column, expected in zip(mine, columns_of, strict=True):
            np.testing.assert_array_equal(column, expected)
        assert (columns_of[2] == (step == height - 1)).all()
    assert {*columns_of[1].tolist()} == {-1, 1}
    environments.close()


def test_it_trains_on_envpool_and_is_scored_on_gymnasium() -> None:
    assert make_environments("Catch-v0", 2, 0).backend == "envpool"
    assert describe("Catch-v0").reward_threshold == 0.95
    try_out("Catch-v0", 50)
