"""PQN: λ-returns of its own values, by hand and by the recursion, and the loss towards them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.errors import UserError
from learner.algorithms.algorithm import Experience
from learner.algorithms.pqn import PQN
from learner.networks.q_network import QNetwork
from tests.learner import make_batch, property_test
from tests.learner.algorithms.valued import table_network, value_learner, valued_spec

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

# Values of the best actions: 2, 4, 6 and 8.
TABLE = torch.tensor([[2.0, 1], [0, 4], [6, 5], [8, 7]], dtype=torch.float64)


def flown(
    states: list[int], finals: list[int], rewards: list[float], lengths: list[int], terminated: list[bool]
) -> Experience:
    """Experience of numbered states."""
    one_hot = torch.eye(4, dtype=torch.float64)
    return Experience(
        observations=one_hot[states],
        final_observations=one_hot[finals],
        encoded=one_hot[states] * float("nan"),
        final_encoded=one_hot[finals] * float("nan"),
        allows=None,
        final_allows=None,
        actions=torch.zeros(len(states), dtype=torch.int64),
        rewards=torch.tensor(rewards, dtype=torch.float64),
        notes={},
        ends=torch.tensor(np.cumsum(lengths) - 1),
        terminated=torch.tensor(terminated, dtype=torch.float64),
        longest=max(lengths),
    )


def targets(algorithm: PQN, experience: Experience, table: Tensor = TABLE) -> list[float]:
    network = table_network(table[..., None], table[..., None])
    with torch.no_grad():
        columns, numbers = algorithm.prepare(network, experience)
    assert torch.equal(columns["observations"], experience.observations)
    assert torch.equal(columns["actions"], experience.actions)
    assert numbers == {"mean_return_target": pytest.approx(float(columns["returns"].mean()))}
    returns: list[float] = columns["returns"].tolist()
    return returns


# States 0, 1 | 2 and after them 2 | 3, rewards 1, 2 | 3; γ = ½.
@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize(
    ("q_lambda", "whole", "cut"),
    [
        # r + ½ max q of what follows: 1 + 2, 2 + 3 or 2
        (0.0, [3, 2], [3, 5]),
        # The rewards to the end: 1 + 1, 2; or 1 + ½ 5, 2 + 3
        (1.0, [2, 2], [3.5, 5]),
        # 1 + ½ (½ 4 + ½ 2); or 1 + ½ (½ 4 + ½ 5)
        (0.5, [2.5, 2], [3.25, 5]),
    ],
)
def test_targets_by_hand(q_lambda: float, whole: list[float], cut: list[float], terminated: bool) -> None:
    experience = flown([0, 1, 2], [2, 3], [1, 2, 3], [2, 1], [terminated, False])
    expected = [*(whole if terminated else cut), 3 + 0.5 * 8]
    assert targets(PQN(q_lambda=q_lambda, gamma=0.5), experience) == expected


def test_targets_are_of_actions_that_are_allowed() -> None:
    """Where the best is forbidden the next best counts: 1, 0, 5 and 7."""
    experience = flown([0, 1, 2], [2, 3], [1, 2, 3], [2, 1], [True, False])
    masked = experience._replace(
        allows=torch.tensor([[False, True], [True, False], [False, True]]),
        final_allows=torch.tensor([[True, True], [False, True]]),
    )
    assert targets(PQN(q_lambda=0.0, gamma=0.5), masked) == [1, 2, 3 + 0.5 * 7]


@property_test
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    q_lambda=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_targets_are_the_recursion(lengths: list[int], seed: int, gamma: float, q_lambda: float) -> None:
    """G_t = r + γ ((1 − λ) max q(s_{t+1}) + λ G_{t+1}), from the end, where G is max q, or 0 in a terminal state."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(4, 2))
    states, finals = rng.integers(4, size=sum(lengths)), rng.integers(4, size=len(lengths))
    rewards, terminated = rng.normal(size=sum(lengths)), rng.random(len(lengths)) < 0.5
    best, expected, end = table.max(1), np.zeros(sum(lengths)), sum(lengths)
    for segment in reversed(range(len(lengths))):
        value = following = 0.0 if terminated[segment] else best[finals[segment]]
        for t in reversed(range(end - lengths[segment], end)):
            following = expected[t] = rewards[t] + gamma * ((1 - q_lambda) * value + q_lambda * following)
            value = best[states[t]]
        end -= lengths[segment]
    experience = flown(states.tolist(), finals.tolist(), rewards.tolist(), lengths, terminated.tolist())
    found = targets(PQN(q_lambda=q_lambda, gamma=gamma), experience, torch.from_numpy(table))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_loss_by_hand_and_its_gradient() -> None:
    """q(s, a) are 1, 6 and 8, so that errors are 2, −2 and 1; d/dq is −error over B, and 0 for what was not done."""
    network = table_network(TABLE[..., None], TABLE[..., None])
    steps = {
        "observations": torch.eye(4, dtype=torch.float64)[[0, 2, 3]],
        "actions": torch.tensor([1, 0, 0]),
        "returns": torch.tensor([3.0, 4, 9], dtype=torch.float64),
    }
    loss, metrics = PQN().loss(network, steps)
    assert loss.item() == pytest.approx(0.5 * (4 + 4 + 1) / 3)
    numbers = {name: value.item() for name, value in metrics.items()}
    assert numbers == pytest.approx({"q_values": 5, "td_error": 5 / 3})
    (gradient,) = torch.autograd.grad(loss, [network.online.last.weight])
    expected = torch.zeros(4, 2, dtype=torch.float64)
    expected[0, 1], expected[2, 0], expected[3, 0] = -2 / 3, 2 / 3, -1 / 3
    torch.testing.assert_close(gradient.T, expected)


def test_a_batch_is_gone_over_as_often_as_there_are_epochs() -> None:
    learner = value_learner(valued_spec(), PQN(n_epochs=3, batch_size=8))
    _, metrics = learner.update(make_batch(learner.policy(), [20]))
    assert (metrics["train/epochs"], metrics["train/gradient_steps"]) == (3, 9)
    assert isinstance(learner.network, QNetwork)
    assert learner.network.target is learner.network.online


def test_targets_are_of_observations_as_the_networks_take_them() -> None:
    """Standardised, before and after: wherever they are and however large, what is learned is the same."""
    found = []
    for offset, scale in ((0.0, 1.0), (500.0, 50.0)):
        learner = value_learner(valued_spec(normalize_observations=True), PQN(batch_size=8, n_epochs=2), seed=1)
        batch = make_batch(learner.policy(), [20, 13], seed=1, terminated=[False, False])
        moved = {
            name: (offset + scale * getattr(batch, name)).astype(np.float32)
            for name in ("observations", "final_observations")
        }
        found.append(learner.update(dataclasses.replace(batch, **moved))[1])
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"q_lambda": 1.5}, "q_lambda must lie between 0 and 1, not 1.5"),
        ({"q_lambda": -0.1}, "q_lambda must lie between 0 and 1, not -0.1"),
        ({"n_epochs": 0}, "n_epochs must be 1 or more, not 0"),
    ],
)
def test_impossible_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        PQN(**options)
    assert str(error.value) == said
