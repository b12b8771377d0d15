"""A learner with a replay memory: what its state holds, and what statistics of observations it learns with."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch

from actors.episode import Array, EpisodeBatch
from actors.spaces import Box, Discrete
from learner.algorithms.dqn import DQN
from learner.algorithms.pqn import PQN
from learner.networks.q_network import QNetwork
from learner.run.initial import Initial
from learner.run.learner import Learner
from tests.actors.examples import random_policy
from tests.learner import make_batch, make_spec
from tests.learner.algorithms.valued import small_dqn, value_learner, valued_spec

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

OBSERVATIONS = ("observations", "final_observations")
KINDS: dict[str, tuple[DQN, dict[str, Any]]] = {
    "uniform": (small_dqn(), {}),
    "prioritised": (small_dqn(prioritized=True), {}),
    "gone round": (small_dqn(prioritized=True, buffer_size=30, n_step=3), {}),
    "all of it": (
        small_dqn(prioritized=True, double=True, dueling=True, n_quantiles=5),
        {"layer_norm": True, "normalize_observations": True},
    ),
}


def go_on(*learners: Learner, updates: int = 3, first_seed: int = 0) -> list[list[dict[str, float]]]:
    """Updates of each by the batches of the first one's policies; answers their metrics."""
    metrics: list[list[dict[str, float]]] = [[] for _ in learners]
    for seed in range(first_seed, first_seed + updates):
        batch = make_batch(learners[0].policy(), [20, 11, 7], seed=seed, terminated=[True, False, False])
        for own, learner in zip(metrics, learners, strict=True):
            own.append(learner.update(batch)[1])
    return metrics


def assert_same_state(first: Learner, second: Learner) -> None:
    states = first.state(), second.state()
    assert set(states[0]) == set(states[1])
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_with_its_memory_a_learner_goes_on_bit_for_bit(kind: str) -> None:
    algorithm, network = KINDS[kind]
    algorithm = dataclasses.replace(algorithm, target_update_interval=4, tau=0.5)
    first, second = (
        value_learner(valued_spec(**network), algorithm, seed=seed, keeps_memory=True, learning_rate=0.01)
        for seed in (1, 2)
    )
    go_on(first)
    second.load_state(first.state())
    assert_same_state(first, second)
    mine, theirs = go_on(first, second, first_seed=10)
    assert mine == theirs
    assert all(metrics["train/gradient_steps"] > 0 for metrics in theirs)
    assert theirs[-1]["train/n_updates"] == 6
    assert_same_state(first, second)
    for name, array in first.policy().weights.items():
        np.testing.assert_array_equal(second.policy().weights[name], array, err_msg=name)


def test_without_its_memory_a_learner_fills_one_before_it_learns() -> None:
    algorithm = small_dqn(learning_starts=100)
    first, second = (value_learner(valued_spec(), algorithm, seed=seed) for seed in (1, 2))
    assert go_on(first)[0][-1]["train/gradient_steps"] > 0
    assert not any(name.startswith("memory") for name in first.state())
    second.load_state(first.state())
    before = second.state()["parameters"].copy()
    (metrics,) = go_on(second)
    assert [own["train/gradient_steps"] for own in metrics] == [0, 0, 4]  # of 38 steps, and the rest of the division
    assert [own["train/memory_size"] for own in metrics] == [38, 76, 114]
    assert [own["train/n_updates"] for own in metrics] == [4, 5, 6]
    assert (second.state()["parameters"] != before).any()


def test_until_it_learns_its_weights_stay() -> None:
    learner = value_learner(valued_spec(), small_dqn(learning_starts=100))
    before = learner.state()["parameters"].copy()
    (metrics,) = go_on(learner, updates=2)
    np.testing.assert_array_equal(learner.state()["parameters"], before)
    assert not any(name in own for own in metrics for name in ("train/loss", "train/q_values", "train/grad_norm"))


def test_its_state_has_the_target_network_and_what_schedules_follow() -> None:
    algorithm = small_dqn(target_update_interval=10**6, exploration_steps=100)
    first, second = (value_learner(valued_spec(), algorithm, seed=seed) for seed in (1, 2))
    go_on(first)
    second.load_state(first.state())
    assert isinstance(first.network, QNetwork)
    assert isinstance(second.network, QNetwork)
    for own, other in zip(second.network.target.parameters(), first.network.target.parameters(), strict=True):
        assert torch.equal(own, other)
    for own, online in zip(second.network.target.parameters(), second.network.online.parameters(), strict=True):
        assert not torch.equal(own, online)
    assert second.policy().weights["epsilon"].tolist() == first.policy().weights["epsilon"].tolist()
    assert second.policy().weights["epsilon"][0] == np.float32(algorithm.epsilon(114))
    state = first.state()
    assert (int(state["steps"]), int(state["gradient_steps"])) == (114, 14)


def test_the_target_follows_by_steps_that_were_taken_before() -> None:
    """Of 14 and 5 steps: one update, after the 15th, wherever the learner was when it went on."""
    algorithm = small_dqn(target_update_interval=15)
    first, second = (value_learner(valued_spec(), algorithm, seed=1, keeps_memory=True) for _ in range(2))
    go_on(first)
    second.load_state(first.state())
    assert isinstance(second.network, QNetwork)
    before = [parameter.clone() for parameter in second.network.target.parameters()]
    go_on(first, second, updates=1, first_seed=5)
    assert_same_state(first, second)
    after = [*second.network.target.parameters()]
    assert not any(torch.equal(own, old) for own, old in zip(after, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_a_copy(kind: str) -> None:
    algorithm, network = KINDS[kind]
    learner = value_learner(valued_spec(**network), dataclasses.replace(algorithm, buffer_size=30), keeps_memory=True)
    go_on(learner)
    state = learner.state()
    before = {name: array.copy() for name, array in state.items()}
    go_on(learner, first_seed=10)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("kind", [DQN, PQN])
def test_a_seed_decides_every_bit(kind: type[DQN | PQN]) -> None:
    algorithm = small_dqn(prioritized=True) if kind is DQN else PQN(batch_size=16, n_epochs=2)

    def run(seed: int, of_torch: int) -> Array:
        torch.manual_seed(of_torch)  # nobody else's random numbers matter
        learner = value_learner(valued_spec(), algorithm, seed=seed)
        go_on(learner)
        return learner.state()["parameters"]

    np.testing.assert_array_equal(run(seed=1, of_torch=5), run(seed=1, of_torch=6))
    assert (run(seed=1, of_torch=5) != run(seed=2, of_torch=5)).any()


def of_raw(batch: EpisodeBatch, offset: float, scale: float) -> EpisodeBatch:
    """The same experience, seen in other units."""
    moved = {name: (offset + scale * getattr(batch, name)).astype(np.float32) for name in OBSERVATIONS}
    return dataclasses.replace(batch, **moved)


def test_the_memory_holds_observations_as_they_came() -> None:
    learner = value_learner(valued_spec(normalize_observations=True), small_dqn(), keeps_memory=True)
    batches = [of_raw(make_batch(learner.policy(), [20], seed=seed), 5.0, 3.0 + seed) for seed in range(3)]
    for batch in batches:
        learner.update(batch)
    held = learner.state()
    everything = np.concatenate([batch.observations for batch in batches])
    np.testing.assert_array_equal(held["memory.column.observations"], everything)
    following = np.concatenate([np.append(batch.observations[1:], batch.final_observations, 0) for batch in batches])
    np.testing.assert_array_equal(held["memory.column.next_observations"], following)


def test_what_is_learned_does_not_depend_on_the_units_of_observations() -> None:
    """Old steps too are standardised by the statistics of today, which are of all observations."""
    found = []
    for offset, scale in ((0.0, 1.0), (500.0, 50.0)):
        learner = value_learner(valued_spec(normalize_observations=True), small_dqn(), seed=1)
        for seed in range(3):  # of a policy that is not theirs, so that both see the same
            batch = make_batch(random_policy(make_spec()), [20, 30], seed=seed, terminated=[False, False])
            batch = of_raw(of_raw(batch, 2.0 * seed, 1.0 + seed), offset, scale)
            _, metrics = learner.update(batch)
        found.append(metrics)
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-4)


def test_a_step_is_of_the_statistics_of_its_update() -> None:
    """The loss of the only minibatch of an update by hand: with statistics that have its batch in them."""
    algorithm = small_dqn(replay_ratio=1 / 8, td_loss="squared")
    learner = value_learner(valued_spec(normalize_observations=True), algorithm, keeps_memory=True)
    metrics: dict[str, float] = {}
    twin: QNetwork | None = None
    for seed in range(2):
        batch = of_raw(make_batch(learner.policy(), [8], seed=seed, rewards=[1] * 8), 4.0 * seed, 1.0 + 2 * seed)
        twin = QNetwork(valued_spec(normalize_observations=True))
        twin.load_state_dict(learner.network.state_dict())
        generator = torch.Generator()
        generator.set_state(torch.from_numpy(learner.state()["generator"]))
        policy, metrics = learner.update(batch)
    places = torch.randint(16, (8,), generator=generator)
    held = {name: torch.from_numpy(array) for name, array in learner.state().items() if name.startswith("memory.")}
    mean, std = (torch.from_numpy(policy.weights[f"observation_{part}"]) for part in ("mean", "std"))
    assert twin is not None
    with torch.no_grad():
        now, following = (
            (held[f"memory.column.{name}"][places] - mean) / std for name in ("observations", "next_observations")
        )
        taken = held["memory.column.actions"][places]
        targets = held["memory.column.returns"][places]
        targets = targets + held["memory.column.discounts"][places] * twin.q_values(following, of_target=True).amax(1)
        expected = 0.5 * (twin.q_values(now).gather(1, taken[:, None])[:, 0] - targets).square().mean()
    assert metrics["train/loss"] == pytest.approx(float(expected), rel=1e-4)


def test_a_small_signal_on_a_large_offset_goes_through_the_memory() -> None:
    """float32 has no number between 1e9 and 1e9 + 64."""
    spec = make_spec(
        "epsilon_greedy", Box((4,), "float64"), Discrete(3), normalize_observations=True, hidden_sizes=(8,)
    )
    learner = value_learner(spec, small_dqn(), keeps_memory=True)
    batch = make_batch(learner.policy(), [20])
    moved = {name: getattr(batch, name).astype(np.float64) + 1e9 for name in OBSERVATIONS}
    learner.update(dataclasses.replace(batch, **moved))
    held = learner.state()["memory.column.observations"]
    np.testing.assert_array_equal(held, moved["observations"])
    assert held.dtype == np.float64


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_learner_acts_at_first_as_the_policy_did(normalised: bool, dueling: bool) -> None:
    """But for ε, which is the run's own; its target says the same."""
    spec = valued_spec(normalize_observations=normalised, layer_norm=True)
    learned = value_learner(spec, small_dqn(), seed=5)
    go_on(learned)
    policy = learned.policy()
    algorithm = small_dqn(dueling=dueling, n_quantiles=3, exploration_initial_eps=0.5)
    learner = value_learner(spec, algorithm, initial=Initial("there", policy))
    for name, array in learner.policy().weights.items():
        expected = [0.5] if name == "epsilon" else policy.weights[name]
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert isinstance(learner.network, QNetwork)
    observations = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        learner.network.q_values(observations, of_target=True), learner.network.q_values(observations)
    )


def test_notes_tell_the_size_of_the_memory_once() -> None:
    learner = value_learner(valued_spec(), small_dqn(buffer_size=50_000))
    assert learner.notes() == []
    go_on(learner)
    # Four numbers and four that follow, an action, a return and a discount
    assert learner.notes() == [(logging.INFO, "replay memory of 50,000 steps of 48 bytes: 2 MB")]
    go_on(learner)
    assert learner.notes() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_goes_on_on_another_device(kind: str) -> None:
    algorithm, network = KINDS[kind]
    on_cpu = value_learner(valued_spec(**network), algorithm, keeps_memory=True)
    go_on(on_cpu)
    on_gpu = value_learner(valued_spec(**network), algorithm, keeps_memory=True, device="cuda")
    on_gpu.load_state(on_cpu.state())
    mine, theirs = go_on(on_cpu, on_gpu, updates=1, first_seed=10)
    assert theirs[0] == pytest.approx(mine[0], rel=1e-2, abs=1e-3)
    on_cpu.load_state(on_gpu.state())
    go_on(on_cpu, updates=1, first_seed=20)
