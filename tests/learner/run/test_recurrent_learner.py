"""What only a memory can learn, and how a learner of one goes on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from actors.environments import describe
from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.rollout import Rollout, RolloutConfig
from actors.vectors import make_environments
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.pqn import PQN
from learner.algorithms.sac import SAC
from learner.algorithms.tabular import Tabular
from learner.memory.latest import Latest
from learner.run.config import TrainConfig, overlay
from learner.run.learner import Learner
from tests.learner import make_batch, make_spec
from tests.learner.learners import make_learner

CUE = "tests.actors.fake_environments:Cue-v0"
FAST = PPO(gamma=1.0, gae_lambda=1.0, ent_coef=0.01, n_epochs=4, batch_size=256)


def taught(memory: Any, algorithm: PolicyGradient = FAST, updates: int = 25, rollout: int = 40) -> float:
    """The mean return of a hundred episodes in which a cue is to be remembered for eight steps; 0.5 is chance."""
    spec = describe(CUE).policy_spec(hidden_sizes=(16,), memory=memory, memory_size=16)
    learner = make_learner(spec, dataclasses.replace(algorithm, sequence_length=16), learning_rate=4e-3, seed=1)
    flying, policy = Rollout(make_environments(CUE, 32, seed=2), seed=3), learner.policy()
    for _ in range(updates):
        policy, _ = learner.update(flying.collect(policy, RolloutConfig(n_steps=rollout)))
    return float(fly_episodes(policy, range(100))[0].mean())


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_cue_is_remembered(memory: str) -> None:
    assert taught(memory) > 0.95


def test_without_a_memory_it_cannot_be() -> None:
    assert taught("none") < 0.7


def test_the_memory_at_a_segments_start_is_enough_to_go_on_from() -> None:
    """Rollouts a little longer than the episodes: most cues were seen in the segment before."""
    assert taught("gru", updates=80, rollout=12) > 0.95


def test_impala_learns_it_too() -> None:
    algorithm = PolicyGradient(
        advantage="vtrace", gamma=1.0, gae_lambda=1.0, ent_coef=0.01, n_epochs=1, batch_size=None
    )
    assert taught("gru", algorithm, updates=120) > 0.95


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_learner_goes_on_from_its_state_bit_for_bit(memory: str) -> None:
    spec = make_spec(memory=memory, normalize_observations=True)
    options: dict[str, Any] = {"sequence_length": 8, "target_kl": 0.1}
    one = make_learner(spec, seed=1, **options)
    policy, _ = one.update(make_batch(one.policy(), [20, 13, 7], seed=0))
    other = make_learner(spec, seed=2, **options)
    other.load_state(one.state())
    batch = make_batch(policy, [9, 30, 1], seed=1, terminated=[False, True, False])
    (mine, metrics), (theirs, again) = one.update(batch), other.update(batch)
    assert metrics == again
    for name, array in mine.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)


def test_experience_of_the_newest_policy_is_on_policy_whatever_the_windows() -> None:
    for length in (2, 8, 16):
        learner = make_learner(make_spec(memory="gru"), n_epochs=1, batch_size=64, sequence_length=length)
        _, metrics = learner.update(make_batch(learner.policy(), [20, 13, 7]))
        assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["train/memory_drift"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("algorithm", [DQN(), PQN(), SAC(), Tabular()])
def test_who_learns_without_a_memory_says_so(algorithm: Algorithm) -> None:
    with pytest.raises(UserError, match=r"memory gru is for policy gradients .* memory must be none"):
        algorithm.require_fit(make_spec(memory="gru"))


def test_minibatches_are_of_whole_windows() -> None:
    PPO(batch_size=100, sequence_length=32).require_fit(make_spec())
    PPO(batch_size=None, sequence_length=32).require_fit(make_spec(memory="gru"))
    with pytest.raises(UserError, match=r"batch_size must be a multiple of sequence_length 32, not 100"):
        PPO(batch_size=100, sequence_length=32).require_fit(make_spec(memory="gru"))
    with pytest.raises(UserError, match=r"sequence_length must be 1 or more"):
        PPO(sequence_length=0)


def test_options_of_the_network() -> None:
    config = overlay(TrainConfig(), {"network": {"memory": "lstm", "memory_size": 32}}, "test")
    assert (config.network.memory, config.network.memory_size) == ("lstm", 32)
    with pytest.raises(UserError, match=r"memory"):
        overlay(TrainConfig(), {"network": {"memory": "rnn"}}, "test")
    with pytest.raises(UserError, match=r"hidden_sizes must have one"):
        overlay(TrainConfig(), {"network": {"memory": "gru", "hidden_sizes": []}}, "test")


def test_a_learner_of_a_policy_without_one_draws_steps() -> None:
    learner: Learner = make_learner(make_spec(), sequence_length=32)
    assert isinstance(learner._memory, Latest)
    learner.update(make_batch(learner.policy(), [20, 13, 7]))
