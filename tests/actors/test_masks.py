"""What a mask forbids is never done, and what is left is a distribution of its own."""

from __future__ import annotations

import numpy as np
import pytest

from actors.check_env import try_out
from actors.discrete import Categorical
from actors.environments import describe
from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.masks import FORBIDDEN, MASK, masked
from actors.parts import Parts
from actors.rollout import Rollout
from actors.spaces import Box, Discrete, MultiBinary
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import map_leaves
from actors.vectors import GymnasiumEnvironments
from tests.actors import fake_environments
from tests.actors.examples import policy_for, random_policy

KINDS = ["OneOf-v0", "SomeOf-v0", "EachOf-v0", "PartsOf-v0", "SteeredOf-v0"]
SPEC = PolicySpec("Some-v0", Parts({"a": Box((2,)), MASK: MultiBinary((3,))}), Discrete(3), "categorical")


def test_what_is_left_is_the_softmax_over_it() -> None:
    rng = np.random.default_rng(0)
    logits, allows = rng.standard_normal((2_000, 5), np.float32), rng.random((2_000, 5)) < 0.5
    allows[np.arange(2_000), rng.integers(5, size=2_000)] = True
    distribution, parameters = Categorical(5), masked(logits, allows)
    expected = np.where(allows, np.exp(logits), 0) / np.where(allows, np.exp(logits), 0).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(distribution.probabilities(parameters), expected, rtol=1e-5)
    assert (distribution.probabilities(parameters)[~allows] == 0).all()
    rows = np.arange(2_000)
    for noise in (None, distribution.noise(rng, (2_000,))):
        actions = distribution.sample(parameters, noise)
        assert allows[rows, actions].all()
        np.testing.assert_allclose(
            distribution.log_prob(parameters, actions), np.log(expected[rows, actions]), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("env_id", KINDS)
def test_nobody_does_what_is_forbidden(env_id: str) -> None:
    """These environments raise at it."""
    policy = policy_for(env_id)
    rollout = Rollout(GymnasiumEnvironments(env_id, 8, seed=0), seed=0)
    for batch in (rollout.fragments(policy, 60), rollout.episodes(policy, 20)):
        assert np.isfinite(batch.notes["log_prob"]).all()
        assert (batch.notes["log_prob"] > FORBIDDEN / 2).all()
    for deterministic in (True, False):
        fly_episodes(policy, range(50), deterministic=deterministic)
    assert len(try_out(env_id, 60)) == 20


def test_its_network_does_not_see_the_mask() -> None:
    policy = random_policy(SPEC)
    assert policy.spec.layer_sizes[0] == 2
    observations = {"a": np.ones((2, 2), np.float32), MASK: np.array([[1, 1, 1], [0, 1, 1]], np.int8)}
    free, bound = policy.forward(observations)
    np.testing.assert_array_equal(free[1:], bound[1:])
    assert bound[0] == np.float32(FORBIDDEN)


def test_a_mask_that_forbids_everything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forbids = fake_environments.Forbidding._observation
    monkeypatch.setattr(
        fake_environments.Forbidding,
        "_observation",
        lambda env, is_last: map_leaves(np.zeros_like, forbids(env, is_last)),
    )
    policy = policy_for("SomeOf-v0")
    monkeypatch.setattr(policy.distribution, "can_act", lambda allows: allows.any(axis=1))
    with pytest.raises(UserError, match="SomeOf-v0: action_mask forbids every action"):
        Rollout(GymnasiumEnvironments("SomeOf-v0", 2, seed=0), seed=0).fragments(policy, 4)
    with pytest.raises(UserError, match="SomeOf-v0: action_mask forbids every action"):
        fly_episodes(policy, [0])


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="Unfit-v0: action_mask has 5 numbers, one for each of 4 is needed"):
        describe("Unfit-v0")


def test_continuous_actions_take_it_for_a_part_like_others() -> None:
    box = Box((1,), low=(-1.0,), high=(1.0,))
    spec = PolicySpec("Some-v0", SPEC.observation, box, "gaussian", network=PolicyNetwork(()))
    assert not spec.is_masked
    assert spec.layer_sizes == (5, 1)
    observations = spec.observation.sample(np.random.default_rng(0), 3)
    assert random_policy(spec).act(observations).shape == (3, 1)
