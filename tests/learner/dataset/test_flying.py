"""Policies as recordings are flown with them: their actions are the environment's, and a share of them random."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from actors.distributions import distribution_for
from actors.errors import UserError
from actors.masks import MASK
from actors.parts import Parts
from actors.policy import Policy
from actors.rollout import Rollout
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.spec import PolicyNetwork, PolicySpec
from actors.vectors import make_environments
from learner.dataset.flying import Recorded
from tests.actors.examples import random_policy, stubborn_policy

BOX = Box((2,), low=(-1.0, 0.0), high=(3.0, 0.5))
SPACES = {
    "discrete": Discrete(3, 5),
    "multi discrete": MultiDiscrete((2, 4), (2,), (1, -3)),
    "multi binary": MultiBinary((2, 2)),
    "box": BOX,
}


def policy_of(action: Space, scale: float = 1.0) -> Policy:
    spec = PolicySpec("CartPole-v1", Box((4,)), action, distribution_for(action), network=PolicyNetwork(()))
    policy = random_policy(spec)
    scaled = {name: weight * np.float32(scale) for name, weight in policy.weights.items() if name != "log_std"}
    return Policy(spec, policy.weights | scaled)


@pytest.mark.parametrize("name", SPACES)
def test_actions_are_as_the_environment_takes_them(name: str) -> None:
    policy = policy_of(SPACES[name])
    observations = np.random.default_rng(0).standard_normal((50, 4), np.float32)
    step = Recorded(policy, 0, True, 0).step(
        observations, {}, policy.distribution.noise(np.random.default_rng(1), (50,))
    )
    greedy = policy.step(observations, {})
    np.testing.assert_array_equal(step.sampled, greedy.actions)
    noise = policy.distribution.noise(np.random.default_rng(1), (50,))
    step = Recorded(policy, 0, False, 0).step(observations, {}, noise)
    np.testing.assert_array_equal(step.sampled, policy.step(observations, {}, noise).actions)
    assert (step.sampled != greedy.actions).any()


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_a_share_of_actions_is_uniformly_random(name: str, deterministic: bool) -> None:
    space, count = SPACES[name], 40_000
    policy = policy_of(space, 1000.0)  # which knows what it wants
    policy = Policy(policy.spec, policy.weights | ({"log_std": np.full(2, -9, np.float32)} if name == "box" else {}))
    observations = np.tile(np.random.default_rng(0).standard_normal((1, 4), np.float32), (count, 1))
    wanted = policy.step(observations[:1], {}).actions
    noise = policy.distribution.noise(np.random.default_rng(1), (count,))
    actions = Recorded(policy, 0.4, deterministic, 7).step(observations, {}, noise).sampled.reshape(count, -1)
    assert not space.outside(actions.reshape(count, *space.shape)).any()
    others = (actions != wanted.reshape(1, -1)).any(axis=1)
    if isinstance(space, Box):
        random = actions[others]
        assert len(random) / count == pytest.approx(0.4, abs=0.02)
        for column, low, high in zip(random.T, space.low, space.high, strict=True):
            assert low <= column.min() < low + 0.01 * (high - low)
            assert column.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        return
    found, counts = np.unique(actions, axis=0, return_counts=True)
    kinds = {"discrete": 3, "multi discrete": 8, "multi binary": 16}[name]
    assert len(found) == kinds
    np.testing.assert_allclose(np.sort(counts)[:-1] / count, 0.4 / kinds, atol=0.01)


def test_random_actions_are_the_seeds() -> None:
    policy = policy_of(BOX)
    observations = np.zeros((50, 4), np.float32)
    first, again, other = (Recorded(policy, 0.5, True, seed).step(observations, {}).sampled for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_random_actions_are_ones_that_a_mask_allows() -> None:
    observation = Parts({"a": Box((4,)), MASK: MultiBinary((3,))})
    policy = random_policy(
        PolicySpec("CartPole-v1", observation, Discrete(3), "categorical", network=PolicyNetwork(()))
    )
    observations = {"a": np.zeros((90, 4), np.float32), MASK: np.tile(np.array([[1, 0, 1]], np.int8), (90, 1))}
    actions = Recorded(policy, 1.0, False, 2).step(observations, {}).actions
    assert {*actions.tolist()} == {0, 2}


def test_what_cannot_be_random() -> None:
    unbounded = dataclasses.replace(BOX, low=(-np.inf, 0.0))
    with pytest.raises(UserError, match="CartPole-v1: actions without bounds cannot be random: leave epsilon out"):
        Recorded(policy_of(unbounded), 0.1, False, 0)
    Recorded(policy_of(unbounded), 0, False, 0)
    for epsilon in (-0.1, 1.1, np.nan):
        with pytest.raises(UserError, match="epsilon must lie between 0 and 1"):
            Recorded(policy_of(BOX), epsilon, False, 0)


def test_a_rollout_notes_what_was_flown() -> None:
    policy = stubborn_policy("CartPole-v1", 1)
    environments = make_environments("CartPole-v1", 4, 0)
    batch = Rollout(environments, 1).episodes(Recorded(policy, 0.0, False, 2), 2)
    assert not batch.notes
    assert (batch.actions == 1).all()
    random = Rollout(environments, 1).episodes(Recorded(policy, 1.0, False, 2), 25)
    assert random.actions.mean() == pytest.approx(0.5, abs=0.05)


def test_a_policy_that_remembers_its_actions_remembers_the_random_ones() -> None:
    network = PolicyNetwork((8,), memory="transformer", memory_size=8)
    policy = random_policy(PolicySpec("CartPole-v1", Box((4,)), BOX, "gaussian", network=network, target_return=100.0))
    observations = np.ones((6, 4), np.float32)
    flying = Recorded(policy, 1.0, True, 0)
    random = flying.step(observations, flying.start(6))
    own = policy.step(observations, policy.start(6))
    assert (random.memory["core"] != own.memory["core"]).any()
    assert policy._core is not None
    np.testing.assert_array_equal(random.memory["core"], policy._core.acted(own.memory["core"], random.actions))
