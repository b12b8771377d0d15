"""A seed decides what is learned, and a learner goes on from its state, to the last bit."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch

from actors.episode import Array, EpisodeBatch
from actors.errors import UserError
from actors.trees import leaves
from learner.optimisation.config import OPTIMIZERS
from tests.learner import make_batch, make_spec
from tests.learner.learners import fly_and_update, make_learner, weights

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings


@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_a_seed_decides_every_bit(actions: Literal["categorical", "gaussian"]) -> None:
    def run(seed: int, of_torch: int) -> Array:
        torch.manual_seed(of_torch)  # nobody else's random numbers matter
        learner = make_learner(make_spec(actions), ent_coef=0.01, seed=seed)
        fly_and_update(learner, 3)
        return weights(learner)

    np.testing.assert_array_equal(run(seed=1, of_torch=5), run(seed=1, of_torch=6))
    assert (run(seed=1, of_torch=5) != run(seed=2, of_torch=5)).any()


def test_the_seed_draws_the_initial_weights() -> None:
    first, again, other = (make_learner(make_spec(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(weights(first), weights(again))
    assert (weights(first) != weights(other)).any()


def test_the_seed_also_draws_the_minibatches() -> None:
    def run(seed: int) -> Array:
        learner = make_learner(make_spec(), seed=seed)
        state = make_learner(make_spec(), seed=0).state() | {"generator": learner.state()["generator"]}
        learner.load_state(state)
        fly_and_update(learner, 1)
        return weights(learner)

    assert (run(1) != run(2)).any()


def test_making_a_learner_leaves_torchs_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    make_learner(make_spec(), seed=9)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_learner_goes_on_from_its_state_bit_for_bit(optimizer: Any, normalised: bool) -> None:
    spec = make_spec(normalize_observations=normalised)
    update = {"optimizer": optimizer}
    first, second = (make_learner(spec, **update, seed=seed) for seed in (1, 2))
    fly_and_update(first, 2)
    second.load_state(first.state())
    metrics = [fly_and_update(learner, 2, first_seed=10) for learner in (first, second)]
    assert metrics[0] == metrics[1]
    assert metrics[1]["train/n_updates"] == 4
    states = first.state(), second.state()
    assert set(states[0]) == set(states[1])
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array, err_msg=name)
    for name, array in first.policy().weights.items():
        np.testing.assert_array_equal(second.policy().weights[name], array)


def test_a_state_is_a_copy() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    fly_and_update(learner, 1)
    state = learner.state()
    before = {name: array.copy() for name, array in state.items()}
    fly_and_update(learner, 1)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_state_of_other_networks_is_refused() -> None:
    state = make_learner(make_spec()).state()
    other = make_learner(make_spec(hidden_sizes=(9,)))
    with pytest.raises(UserError, match=r"the checkpoint has \d+ parameters, this configuration \d+"):
        other.load_state(state)


def test_versions_count_on_from_the_spec() -> None:
    learner = make_learner(dataclasses.replace(make_spec(), version=41, trained={"preset": "mine"}))
    policy, metrics = learner.update(make_batch(learner.policy(), [20]))
    assert (policy.spec.version, metrics["train/n_updates"]) == (42, 42)
    assert policy.spec.trained == {"preset": "mine"}


def test_several_batches_are_one() -> None:
    first, second = (make_learner(make_spec()) for _ in range(2))
    parts = [make_batch(first.policy(), [5, 4], seed=1), make_batch(first.policy(), [9], seed=2)]
    first.update(*parts)
    second.update(EpisodeBatch.concatenate(parts))
    np.testing.assert_array_equal(weights(first), weights(second))


def test_an_update_leaves_its_batch_alone() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    batch = make_batch(learner.policy(), [20, 11])
    for _, column in leaves(vars(batch)):
        column.flags.writeable = False  # as Ray hands it over
    before = batch.rewards.copy(), batch.observations.copy()
    learner.update(batch)
    np.testing.assert_array_equal(batch.rewards, before[0])
    np.testing.assert_array_equal(batch.observations, before[1])
