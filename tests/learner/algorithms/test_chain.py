"""What learns action values finds those of a chain that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from actors.episode import Array, EpisodeBatch
from actors.spaces import Box, Discrete
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.algorithms.pqn import PQN
from tests.learner import make_spec
from tests.learner.algorithms.valued import value_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

LENGTH, GAMMA = 4, 0.8
LEFT, RIGHT = 0, 1


def q_star() -> Array:
    """[states, actions]: to the right end, where a reward of 1 is, or first to the left, at a cost of ¼."""
    best = GAMMA ** np.arange(LENGTH - 1, -1, -1)
    left = -0.25 + GAMMA * best[np.maximum(np.arange(LENGTH) - 1, 0)]
    return np.stack([left, best], axis=1)


def walks(whole: bool) -> EpisodeBatch:
    """Every action in every state once, as segments: cut after that step, or from there to the right end."""
    states: list[int] = []
    actions: list[int] = []
    lengths: list[int] = []
    finals: list[int] = []
    for start in range(LENGTH):
        for first in (LEFT, RIGHT):
            state, before, action = start, len(states), first
            while state < LENGTH and (whole or len(states) == before):
                states.append(state)
                actions.append(action)
                state, action = (state + 1 if action == RIGHT else max(state - 1, 0)), RIGHT
            lengths.append(len(states) - before)
            finals.append(state)
    one_hot = np.eye(LENGTH + 1, dtype=np.float32)
    at, taken, terminated = np.array(states), np.array(actions), np.array(finals) == LENGTH
    rewards = np.where(taken == LEFT, -0.25, (at == LENGTH - 1) * 1.0)
    return EpisodeBatch(
        observations=one_hot[at],
        actions=taken,
        rewards=rewards.astype(np.float32),
        notes={},
        segment_lengths=np.array(lengths, np.int32),
        final_observations=one_hot[finals],
        terminated=terminated,
        truncated=np.zeros(len(finals), bool),
        policy_version=np.zeros(len(finals), np.int64),
        episode_returns=np.zeros(int(terminated.sum())),
        episode_lengths=np.array(lengths)[terminated],
    )


REPLAY: dict[str, Any] = {
    **{"gamma": GAMMA, "batch_size": 16, "replay_ratio": 2.0, "buffer_size": 400, "learning_starts": 1},
    **{"target_update_interval": 15},
}


@pytest.mark.parametrize(
    ("algorithm", "updates", "whole", "network"),
    [
        (DQN(**REPLAY), 30, False, {}),
        (DQN(**REPLAY, double=True, dueling=True), 30, False, {}),
        (DQN(**REPLAY, prioritized=True, n_step=3), 12, True, {}),
        (DQN(**REPLAY, n_quantiles=5), 40, False, {}),
        (DQN(**{**REPLAY, "target_update_interval": 1}, tau=0.1), 40, False, {}),
        (DQN(**REPLAY), 40, False, {"hidden_sizes": (16,), "layer_norm": True}),
        (DQN(**REPLAY), 40, False, {"normalize_observations": True}),
        (PQN(gamma=GAMMA, batch_size=8, n_epochs=8, q_lambda=0.0), 40, False, {}),
        (PQN(gamma=GAMMA, batch_size=8, n_epochs=8, q_lambda=0.9), 40, True, {}),
    ],
    ids=[
        "dqn",
        "double, dueling",
        "prioritised, 3 steps",
        "quantiles",
        "polyak",
        "layers",
        "normalised",
        "pqn",
        "q(λ)",
    ],
)
def test_the_values_of_a_chain_are_found(algorithm: Algorithm, updates: int, whole: bool, network: Any) -> None:
    """Of steps to the right end n-step returns and λ-returns are those of the best policy, as one-step targets are."""
    spec = make_spec("epsilon_greedy", Box((LENGTH + 1,)), Discrete(2), **{"hidden_sizes": (), **network})
    learner = value_learner(spec, algorithm, learning_rate=0.02, schedule="linear", max_grad_norm=10.0)
    batch, states = walks(whole), np.eye(LENGTH, LENGTH + 1, dtype=np.float32)
    assert np.abs(learner.policy().forward(states) - q_star()).max() > 0.5
    for i in range(updates):
        policy, _ = learner.update(batch, progress_remaining=1 - i / updates)
    np.testing.assert_allclose(policy.forward(states), q_star(), atol=0.005)
    assert policy.act(states).tolist() == [RIGHT] * LENGTH
