"""Every preset makes an update, is its own, and learns."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from actors.discrete import Categorical
from actors.episode import Array, EpisodeBatch
from actors.policy import Policy
from actors.spaces import Box, Discrete
from learner.algorithms.off_policy import OffPolicy
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.tabular import Tabular
from learner.algorithms.value_based import ValueBased
from learner.run.learner import Learner
from learner.run.presets import PRESETS, preset
from tests.learner import make_batch, make_spec
from tests.learner.learners import make_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

CPU = {"n_epochs": 2, "batch_size": 16}
ONE_SGD_STEP = {"n_epochs": 1, "batch_size": None, "optimizer": "sgd", "learning_rate": 1.0, "max_grad_norm": math.inf}


def weights(learner: Learner) -> Array:
    return learner.state()["parameters"]


# ---- presets

POLICY_GRADIENTS = [name for name in PRESETS if isinstance(preset(name).algorithm, PolicyGradient)]
BY_VALUE = [name for name in PRESETS if isinstance(preset(name).algorithm, ValueBased)]


def preset_learner(name: str, **changes: Any) -> Learner:
    """A learner as a run of that preset makes it, for the synthetic environment."""
    config = preset(name)
    network = config.network.of_policy(Box((4,)))
    options = {**dataclasses.asdict(config.optimisation), **changes, "critic": config.network.critic(False)}
    return make_learner(make_spec(**network), config.algorithm, **options)


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_every_preset_makes_an_update(name: str) -> None:
    learner = preset_learner(name, batch_size=16)
    before = learner.policy()
    after, metrics = learner.update(make_batch(before, [20, 11, 7]))
    assert all(math.isfinite(value) for value in metrics.values())
    for layer in ("w0", "b0", "w1", "b1"):
        assert (after.weights[layer] != before.weights[layer]).any()
    assert (before.spec.version, after.spec.version) == (0, 1)
    expected = {"policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "learning_rate", "n_updates"}
    expected |= {"explained_variance"} if learner.network.critic else set()
    expected |= {"clip_fraction"} if name == "ppo" else set()
    assert {f"train/{metric}" for metric in expected} <= set(metrics)


def test_no_two_presets_are_the_same() -> None:
    """From the same weights, far from uniform, and the same stale experience each comes to a policy of its own."""
    spec = make_spec()
    batch = make_batch(make_learner(spec, seed=8).policy(), [20, 11, 7], seed=1)
    batch = dataclasses.replace(batch, rewards=100 * batch.rewards)
    found = {}
    for name in POLICY_GRADIENTS:
        learner = make_learner(spec, preset(name).algorithm, **{**ONE_SGD_STEP, "learning_rate": 0.1})
        state = learner.state()
        rng = np.random.default_rng(0)  # the policy's weights come first: they are the same with and without a critic
        state["parameters"] = rng.normal(scale=0.5, size=state["parameters"].shape).astype(np.float32)
        learner.load_state(state)
        learner.update(batch)
        found[name] = learner.policy().weights["w0"]
    for first, second in itertools.combinations(POLICY_GRADIENTS, 2):
        assert np.abs(found[first] - found[second]).max() > 1e-5, f"{first} and {second}"


def value_learner(name: str, **changes: Any) -> Learner:
    """A learner as a run of a preset by value makes it, of 16 steps a minibatch, for the bandit's contexts."""
    config, options = preset(name), {"reward_scale": 0.01, "batch_size": 16}
    if isinstance(config.algorithm, Tabular):
        options |= {"visit_exponent": 1.0}
    if isinstance(config.algorithm, OffPolicy):
        options |= {"learning_starts": 16, "replay_ratio": 1 / 8}
    network = config.network.of_policy(Box((4,)))
    sees = Discrete(3) if isinstance(config.algorithm, Tabular) else None
    spec = make_spec("epsilon_greedy", *filter(None, [sees]), **network)
    return make_learner(spec, config.algorithm, **options, **dataclasses.asdict(config.optimisation), **changes)


@pytest.mark.parametrize("name", BY_VALUE)
def test_every_preset_by_value_learns_a_bandit(name: str) -> None:
    """From what is done at random alone: the most valued action is the one that pays, by 100 × 0.01."""
    learner = value_learner(name)
    policy = learner.policy()
    assert policy.distribution.epsilon == 1
    is_table = isinstance(learner.algorithm, Tabular)
    for seed in range(40):
        policy, metrics = learner.update(bandit_batch(policy, seed, numbered=is_table))
    assert all(math.isfinite(value) for value in metrics.values())
    contexts = np.arange(3) if is_table else np.eye(3, 4, dtype=np.float32)
    values = policy.forward(contexts)
    assert values.argmax(axis=1).tolist() == [0, 1, 2]
    others = values[~np.eye(3, dtype=bool)]
    assert values.diagonal().mean() - others.mean() == pytest.approx(1, abs=0.3)
    assert policy.distribution.epsilon == pytest.approx(learner.algorithm.epsilon(40 * 200))


# ---- learning


def bandit_batch(policy: Policy, seed: int, episodes: int = 100, numbered: bool = False) -> EpisodeBatch:
    """Two steps an episode; each shows one of three contexts, and the action of that number pays 100."""
    rng = np.random.default_rng(seed)
    contexts = rng.integers(3, size=2 * episodes)
    observations = contexts if numbered else np.eye(3, 4, dtype=np.float32)[contexts]
    parameters = policy.forward(observations)
    actions = policy.distribution.sample(parameters, policy.distribution.noise(rng, (2 * episodes,)))
    rewards = 100 * (actions == contexts).astype(np.float32)
    return EpisodeBatch(
        observations=observations,
        actions=actions,
        rewards=rewards,
        notes=policy.distribution.notes(parameters, actions),
        segment_lengths=np.full(episodes, 2, np.int32),
        final_observations=np.zeros_like(observations[:episodes]),
        terminated=np.ones(episodes, bool),
        truncated=np.zeros(episodes, bool),
        policy_version=np.full(episodes, policy.spec.version),
        episode_returns=rewards.reshape(-1, 2).sum(1),
        episode_lengths=np.full(episodes, 2),
    )


def chance_of_the_best(policy: Policy) -> Array:
    """[3]: of the right action in each context."""
    assert isinstance(policy.distribution, Categorical)
    return policy.distribution.probabilities(policy.forward(np.eye(3, 4, dtype=np.float32))).diagonal()


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_every_preset_learns_a_bandit(name: str) -> None:
    learner = preset_learner(name, learning_rate=0.01, n_epochs=1)
    policy = learner.policy()
    assert chance_of_the_best(policy) == pytest.approx(1 / 3, abs=0.05)
    for seed in range(60):
        policy, _ = learner.update(bandit_batch(policy, seed))
    assert chance_of_the_best(policy).min() > 0.8


@pytest.mark.parametrize("advantage", ["gae", "vtrace"])
def test_continuous_actions_are_learned(advantage: str) -> None:
    """The closer to (0.5, −0.5), the better."""
    target = np.array([0.5, -0.5], np.float32)
    kind = PPO if advantage == "gae" else PolicyGradient
    config = {"n_epochs": 2, "batch_size": None, "learning_rate": 0.02}
    learner = make_learner(make_spec("gaussian"), kind, advantage=advantage, **config)
    policy = learner.policy()
    for seed in range(60):
        batch = make_batch(policy, [1] * 100, seed=seed)
        rewards = -np.square(batch.actions - target).sum(1)
        policy, _ = learner.update(dataclasses.replace(batch, rewards=rewards))
    observations = np.random.default_rng(0).standard_normal((100, 4), dtype=np.float32)
    np.testing.assert_allclose(policy.forward(observations).mean(0), target, atol=0.15)
    assert (policy.weights["log_std"] < -0.1).all()
