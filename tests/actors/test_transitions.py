"""Environments flown by their own tables do what Gymnasium's do."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv

from actors.environments import describe
from actors.making import make_gymnasium
from actors.rollout import Rollout
from actors.transitions import TransitionTable, tells_transitions
from actors.vectors import make_environments
from tests.actors.examples import random_policy

TABLES = [
    "Taxi-v3",
    "Taxi-v3(is_rainy=True)",
    "FrozenLake-v1",
    "FrozenLake8x8-v1(is_slippery=False)",
    "CliffWalking-v1",
]


@pytest.mark.parametrize("env_id", TABLES)
def test_every_step_is_one_of_the_environments_own(env_id: str) -> None:
    """Outcomes as often as their probabilities say, with their rewards and ends, from where episodes do start."""
    env: Any = make_gymnasium(env_id).unwrapped
    table = TransitionTable(describe(env_id), 500, seed=1)
    slots, rng = np.arange(500), np.random.default_rng(0)
    states, done = table.reset(), np.zeros(500, bool)
    starts = np.zeros(len(env.initial_state_distrib))
    seen: dict[tuple[int, int], dict[tuple[int, float, bool], int]] = {}
    for _ in range(150):
        actions = rng.integers(env.action_space.n, size=500)
        following, rewards, terminated, truncated = table.step(actions, slots)
        for i in range(500):
            if done[i]:
                starts[following[i]] += 1
                assert (rewards[i], terminated[i], truncated[i]) == (0, False, False)
                continue
            outcomes = seen.setdefault((int(states[i]), int(actions[i])), {})
            outcome = (int(following[i]), float(rewards[i]), bool(terminated[i]))
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        states, done = following, terminated | truncated
    assert starts[env.initial_state_distrib == 0].sum() == 0
    for (state, action), outcomes in seen.items():
        told: dict[tuple[int, float, bool], float] = {}
        for probability, following, reward, is_over in env.P[state][action]:
            outcome = (int(following), float(np.float32(reward)), bool(is_over))
            told[outcome] = told.get(outcome, 0) + probability
        count = sum(outcomes.values())
        for outcome, times in outcomes.items():
            assert outcome in told
            spread = np.sqrt(count * told[outcome] * (1 - told[outcome]))
            assert abs(times - count * told[outcome]) <= 5 * spread + 1e-9


def test_time_limits_cut_and_terminations_do_not() -> None:
    """One that ends at its last step has ended of itself too, as in Gymnasium."""
    table = TransitionTable(describe("Taxi-v3"), 1, seed=0)
    table.reset()
    for step in range(1, 201):
        *_, terminated, truncated = table.step(np.array([1]), np.array([0]))
        assert (terminated[0], truncated[0]) == (False, step == 200)
    assert table.step(np.array([1]), np.array([0]))[1:] == (0, False, False)


def test_the_same_seed_the_same_episodes() -> None:
    policy = random_policy(describe("FrozenLake8x8-v1").policy_spec())
    first, again, other = (
        Rollout(make_environments("FrozenLake8x8-v1", 8, seed), seed=0).fragments(policy, 50) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.observations, again.observations)
    assert not np.array_equal(first.observations, other.observations)


def test_who_tells() -> None:
    assert all(tells_transitions(describe(env_id)) for env_id in TABLES)
    assert not tells_transitions(describe("Taxi-v3 | ActionMask"))
    assert not tells_transitions(describe("Taxi-v3(fickle_passenger=True)"))
    assert not tells_transitions(describe("Blackjack-v1"))
    backends = [make_environments("Taxi-v3", 1, 0, backend).backend for backend in ("auto", "gymnasium")]
    assert backends == ["transitions", "gymnasium"]


def always_seven() -> Any:
    """Taxi with another reward."""
    return gymnasium.wrappers.TransformReward(TaxiEnv(), lambda _: -7.0)


gymnasium.register("SevenTaxi-v0", always_seven, max_episode_steps=50)


def test_what_a_wrapper_changes_is_not_told() -> None:
    assert not tells_transitions(describe("SevenTaxi-v0"))
    assert make_environments("SevenTaxi-v0", 1, 0).backend == "gymnasium"
