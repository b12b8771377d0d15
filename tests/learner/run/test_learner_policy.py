"""The policy that goes out is the network that learned, with the statistics of all observations so far."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
import torch

from actors.environments import describe
from actors.evaluation import fly_episodes
from actors.layers import ACTIVATIONS
from actors.policy import Policy
from actors.rollout import Rollout
from actors.spaces import Box
from actors.vectors import make_environments
from tests.learner import make_batch, make_spec
from tests.learner.learners import fly_and_update, make_learner, weights

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

ONE_LOOK = {"n_epochs": 1, "batch_size": None, "learning_rate": 0.05}


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_the_policy_is_the_network(
    actions: Literal["categorical", "gaussian"], activation: str, normalised: bool
) -> None:
    spec = make_spec(actions, activation=activation, normalize_observations=normalised)
    learner = make_learner(spec, learning_rate=0.05)
    fly_and_update(learner, 3)
    policy = learner.policy()
    assert policy.spec == dataclasses.replace(spec, version=3)
    observations = np.random.default_rng(1).standard_normal((50, 4), dtype=np.float32)
    observations[0] = 1e3  # beyond what a normalised observation may be
    inputs = observations
    if normalised:
        standard = (observations - policy.weights["observation_mean"]) / policy.weights["observation_std"]
        inputs = np.clip(standard, -10, 10)
    with torch.no_grad():
        expected = learner.network.actor(torch.from_numpy(inputs)).numpy()
    assert np.ptp(expected[1:], axis=0).min() > 0.1
    np.testing.assert_allclose(policy.forward(observations), expected, rtol=1e-4, atol=1e-5)


def test_the_policy_of_an_update_is_the_learners() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    policy, _ = learner.update(make_batch(learner.policy(), [20]))
    for name, array in learner.policy().weights.items():
        np.testing.assert_array_equal(policy.weights[name], array)
    before = {name: array.copy() for name, array in policy.weights.items()}
    fly_and_update(learner, 1)  # a policy that has gone out stays what it was
    for name, array in policy.weights.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_experience_of_the_newest_policy_is_on_policy(actions: Literal["categorical", "gaussian"]) -> None:
    """The learner finds the log-probabilities that the actor noted: a KL divergence of 0 before the first step."""
    learner = make_learner(make_spec(actions), **ONE_LOOK)
    for seed in range(4):
        _, metrics = learner.update(make_batch(learner.policy(), [20, 11], seed=seed))
        assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["train/clip_fraction"] == 0
    stale = make_batch(make_learner(make_spec(actions), seed=0).policy(), [20, 11], seed=9)
    assert learner.update(stale)[1]["train/approx_kl"] > 1e-3


@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_what_a_batch_changes_of_the_statistics_counts_as_a_change_of_the_policy(
    actions: Literal["categorical", "gaussian"],
) -> None:
    """The learner's ratios are of the policy that it trains, which has the newer statistics, to the one that flew;
    both clip outliers."""
    learner = make_learner(make_spec(actions, activation="relu", normalize_observations=True), **ONE_LOOK)
    fly_and_update(learner, 5)
    for seed in range(4):
        behaviour = learner.policy()
        batch = make_batch(behaviour, [20, 11], seed=seed)
        batch.observations[3] = 1000.0
        log_probs = behaviour.distribution.log_prob(behaviour.forward(batch.observations), batch.actions)
        newest, metrics = learner.update(dataclasses.replace(batch, notes={"log_prob": log_probs}))
        statistics = {name: newest.weights[name] for name in ("observation_mean", "observation_std")}
        assert (statistics["observation_mean"] + 10 * statistics["observation_std"] < 1000).all() or seed
        trained = Policy(behaviour.spec, behaviour.weights | statistics)
        log_ratios = trained.distribution.log_prob(trained.forward(batch.observations), batch.actions) - log_probs
        expected = (np.exp(log_ratios) - 1 - log_ratios).mean()
        assert metrics["train/approx_kl"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_first_update_already_learns_from_normalised_observations(activation: str) -> None:
    """Wherever and however large they are."""
    spec = make_spec(activation=activation, normalize_observations=True)
    found = []
    for offset, scale in ((0.0, 1.0), (500.0, 50.0)):
        learner = make_learner(spec)
        batch = make_batch(make_learner(make_spec()).policy(), [20, 30], truncated=[True, True])
        moved = {
            name: (offset + scale * getattr(batch, name)).astype(np.float32)
            for name in ("observations", "final_observations")
        }
        found.append((learner.update(dataclasses.replace(batch, **moved))[1], weights(learner)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-3)
    assert found[1][0]["train/explained_variance"] > -1


def test_the_policy_carries_statistics_of_all_observations() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    batches = [make_batch(learner.policy(), [20 + i, 7], seed=i) for i in range(3)]
    for batch in batches:
        policy, _ = learner.update(batch)
    everything = np.concatenate([batch.observations for batch in batches])
    np.testing.assert_allclose(policy.weights["observation_mean"], everything.mean(0), atol=1e-6)
    np.testing.assert_allclose(policy.weights["observation_std"], everything.std(0), rtol=1e-5)


def test_observations_of_any_shape_are_flattened() -> None:
    learner = make_learner(make_spec(observation=Box((2, 3)), normalize_observations=True))
    metrics = fly_and_update(learner, 2)
    assert all(math.isfinite(value) for value in metrics.values())
    assert learner.policy().weights["w0"].shape == (6, 8)


def test_a_small_signal_on_a_large_offset_is_learned_from_and_acted_on() -> None:
    """float32 has no number between 1e9 and 1e9 + 64."""
    env_id = "tests.actors.fake_environments:Faint-v0"
    spec = describe(env_id).policy_spec(hidden_sizes=(8,), normalize_observations=True)
    learner = make_learner(spec, gamma=0.5, batch_size=None, learning_rate=0.02)
    rollout = Rollout(make_environments(env_id, 8, seed=0), seed=0)
    for _ in range(30):
        batch = rollout.fragments(learner.policy(), 32)
        assert batch.observations.dtype == batch.final_observations.dtype == np.float64
        learner.update(batch)
    returns, _, _ = fly_episodes(learner.policy(), range(10))
    assert returns.mean() == 10
    assert learner.policy().forward(np.array([[1e9 - 0.01], [1e9 + 0.01]])).dtype == np.float32
