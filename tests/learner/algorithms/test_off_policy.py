"""Learning from a replay memory: what goes into it, when the target network follows, and how much is learned."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.episode import EpisodeBatch
from actors.errors import UserError
from actors.masks import MASK
from actors.parts import Parts
from actors.spaces import Box, Discrete, MultiBinary
from actors.trees import Array
from learner.algorithms.dqn import DQN
from learner.networks.q_network import QNetwork
from learner.run.learner import Learner
from tests.learner import make_batch, make_spec
from tests.learner.algorithms.valued import small_dqn, value_learner, valued_spec

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings


def columns_of(learner: Learner) -> dict[str, Array]:
    """What its memory holds."""
    prefix = "memory.column."
    return {name.removeprefix(prefix): array for name, array in learner.state().items() if name.startswith(prefix)}


def three_segments(learner: Learner) -> EpisodeBatch:
    """Four steps to a termination, two to a truncation, and one that a rollout's end cut."""
    return make_batch(
        learner.policy(),
        [4, 2, 1],
        rewards=[1, 2, 4, 8, 16, 32, 64],
        terminated=[True, False, False],
        truncated=[False, True, False],
    )


@pytest.mark.parametrize(
    ("n", "returns", "discounts", "rows"),
    [
        (1, [1, 2, 4, 8, 16, 32, 64], [0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5], [1, 2, 3, 7, 5, 8, 9]),
        (3, [3, 6, 8, 8, 32, 32, 64], [0.125, 0, 0, 0, 0.25, 0.5, 0.5], [3, 7, 7, 7, 8, 8, 9]),
    ],
)
def test_what_the_memory_holds(n: int, returns: list[float], discounts: list[float], rows: list[int]) -> None:
    """n-step returns with γ = ½, scaled, and the observation n steps on, or the segment's last."""
    algorithm = small_dqn(n_step=n, gamma=0.5, reward_scale=10.0)
    learner = value_learner(valued_spec(), algorithm, keeps_memory=True)
    batch = three_segments(learner)
    learner.update(batch)
    held = columns_of(learner)
    assert set(held) == {"observations", "actions", "returns", "discounts", "next_observations"}
    np.testing.assert_array_equal(held["observations"], batch.observations)
    np.testing.assert_array_equal(held["actions"], batch.actions)
    assert held["returns"].tolist() == [10 * r for r in returns]
    assert held["discounts"].tolist() == discounts
    everything = np.concatenate([batch.observations, batch.final_observations])
    np.testing.assert_array_equal(held["next_observations"], everything[rows])


def test_the_memory_holds_what_is_allowed_where_steps_lead() -> None:
    observation = Parts({"a": Box((4,)), MASK: MultiBinary((3,))})
    spec = make_spec("epsilon_greedy", observation, Discrete(3))
    learner = value_learner(spec, small_dqn(n_step=2), keeps_memory=True)
    rng = np.random.default_rng(0)

    def masks(count: int) -> Array:
        return np.eye(3, dtype=np.int8)[rng.integers(3, size=count)] | rng.integers(2, size=(count, 3), dtype=np.int8)

    batch = three_segments(learner)
    masked = dataclasses.replace(
        batch,
        observations={"a": batch.observations["a"], MASK: masks(7)},
        final_observations={"a": batch.final_observations["a"], MASK: masks(3)},
    )
    learner.update(masked)
    held, rows = columns_of(learner), [2, 3, 7, 7, 8, 8, 9]
    everything = np.concatenate([masked.observations[MASK], masked.final_observations[MASK]])
    np.testing.assert_array_equal(held["next_allows"], everything[rows] > 0)
    assert held["observations"].shape == (7, 4), "the mask is not seen"


def target_of(learner: Learner) -> list[Tensor]:
    assert isinstance(learner.network, QNetwork)
    return [parameter.detach().clone() for parameter in learner.network.target.parameters()]


def online_of(learner: Learner) -> list[Tensor]:
    assert isinstance(learner.network, QNetwork)
    return [parameter.detach().clone() for parameter in learner.network.online.parameters()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(mine, other) for mine, other in zip(left, right, strict=True))


@pytest.mark.parametrize("compile_", [True, False])
def test_the_target_is_copied_every_so_many_steps_and_never_between(compile_: bool) -> None:
    learner = value_learner(valued_spec(), small_dqn(target_update_interval=3), compile=compile_)
    expected = target_of(learner)
    assert same(expected, online_of(learner))
    for step in range(1, 11):
        metrics = learner.update(make_batch(learner.policy(), [8], seed=step))[1]
        assert metrics["train/gradient_steps"] == 1
        if step % 3 == 0:
            expected = online_of(learner)
        assert same(target_of(learner), expected)
        assert same(target_of(learner), online_of(learner)) == (step % 3 == 0)


def test_the_target_is_copied_within_an_update_too() -> None:
    """Seven steps in an update: after the sixth."""
    learner = value_learner(valued_spec(), small_dqn(target_update_interval=6))
    alone = value_learner(valued_spec(), small_dqn(target_update_interval=6, replay_ratio=6 / 56))
    batch = make_batch(learner.policy(), [56])
    assert learner.update(batch)[1]["train/gradient_steps"] == 7
    assert alone.update(batch)[1]["train/gradient_steps"] == 6
    assert same(target_of(learner), online_of(alone))
    assert not same(target_of(learner), online_of(learner))


def test_the_target_follows_by_a_share() -> None:
    learner = value_learner(valued_spec(), small_dqn(target_update_interval=2, tau=0.25))
    for step in range(1, 9):
        before = target_of(learner)
        learner.update(make_batch(learner.policy(), [8], seed=step))
        after = target_of(learner)
        if step % 2:
            assert same(after, before)
        else:
            by_hand = [0.75 * old + 0.25 * own for old, own in zip(before, online_of(learner), strict=True)]
            torch.testing.assert_close(after, by_hand, rtol=1e-6, atol=1e-7)
            assert not same(after, before)


def test_what_the_target_says_is_learned_from() -> None:
    """A learner whose target never follows learns something else once another's did."""
    learners = [value_learner(valued_spec(), small_dqn(target_update_interval=n), seed=1) for n in (1, 10**9)]
    for seed in range(2):
        batch = make_batch(learners[0].policy(), [8], seed=seed, terminated=[False])
        for learner in learners:
            learner.update(batch)
        assert same(*map(online_of, learners)) == (seed == 0)


def test_it_learns_from_the_first_batch_that_fills_the_memory_far_enough() -> None:
    learner = value_learner(valued_spec(), small_dqn(learning_starts=20))
    before = online_of(learner)
    found = []
    for seed in range(4):
        _, metrics = learner.update(make_batch(learner.policy(), [9], seed=seed))
        found.append((metrics["train/gradient_steps"], metrics["train/memory_size"], "train/loss" in metrics))
        assert same(online_of(learner), before) == (seed < 2)
    assert found == [(0, 9, False), (0, 18, False), (1, 27, True), (1, 36, True)]


def test_every_step_counts_once_and_is_drawn_by_the_ratio() -> None:
    learner = value_learner(valued_spec(), small_dqn(replay_ratio=0.5))
    for seed in range(5):
        _, metrics = learner.update(make_batch(learner.policy(), [7], seed=seed))
    assert metrics["train/samples_per_insert"] == (35 // 2) * 8 / 35
    assert metrics["train/n_updates"] == 5


@pytest.mark.parametrize("compile_", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_memory_is_told_of_the_errors_that_were_found(seed: int, compile_: bool) -> None:
    """The first minibatch has each of eight new steps once; their priorities are its |TD errors| to the power of α."""
    algorithm = small_dqn(prioritized=True, priority_alpha=0.5, gamma=0.5, n_step=2)
    learner = value_learner(valued_spec(), algorithm, seed=seed, keeps_memory=True, compile=compile_)
    twin = value_learner(valued_spec(), algorithm, seed=seed).network
    learner.update(make_batch(learner.policy(), [5, 3], seed=seed, terminated=[False, True]))
    held = {name: torch.from_numpy(array) for name, array in columns_of(learner).items()}
    with torch.no_grad():
        targets = held["returns"] + held["discounts"] * twin.q_values(held["next_observations"]).amax(1)
        errors = (targets - twin.q_values(held["observations"]).gather(1, held["actions"][:, None])[:, 0]).abs()
    np.testing.assert_allclose(learner.state()["memory.priorities"], (errors + 1e-6).sqrt(), rtol=1e-4)


def test_its_options_make_the_memory() -> None:
    """α = ½; β = ¼ + ¾ · 4/16 after 4 steps, for weights of P = ⅛, ¼ and ½ over the largest."""
    options = {"batch_size": 4, "replay_ratio": 0.5, "buffer_size": 4}
    of_priorities = {"priority_alpha": 0.5, "priority_beta": 0.25, "priority_beta_steps": 16}
    for prioritized in (False, True):
        algorithm = small_dqn(prioritized=prioritized, **options, **of_priorities)
        memory = algorithm.make_memory(torch.Generator().manual_seed(0))
        memory.add({"step": torch.arange(4)})
        (minibatches,) = memory.draw()
        first = next(iter(minibatches))
        assert ("weights" in first) == prioritized
    assert first["step"].tolist() == [0, 1, 2, 3]
    memory.told(torch.tensor([4.0, 4, 16, 64]))
    (second,) = minibatches
    assert second["step"].tolist()[1:] == [2, 3, 3]
    torch.testing.assert_close(second["weights"], torch.tensor([1, 0.5, 0.25, 0.25]) ** 0.4375)
    memory.add({"step": torch.arange(4, 10)})
    assert len(memory) == 4


def test_any_lag_is_tolerated() -> None:
    assert DQN().most_lag is None
    assert DQN().whole_episodes is None


def test_options_of_priorities_are_idle_without_them() -> None:
    of_priorities = {"priority_alpha", "priority_beta", "priority_beta_steps"}
    assert DQN().idle_options == of_priorities
    assert DQN(prioritized=True).idle_options == frozenset()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"buffer_size": 0}, "buffer_size must be 1 or more, not 0"),
        ({"learning_starts": -1}, "learning_starts must be 0 or more, not -1"),
        (
            {"learning_starts": 101, "buffer_size": 100},
            "learning_starts 101 is more than the memory holds, buffer_size 100",
        ),
        ({"replay_ratio": 0.0}, "replay_ratio must be positive, not 0.0"),
        ({"replay_ratio": float("inf")}, "replay_ratio must be positive, not inf"),
        ({"priority_alpha": 1.5}, "priority_alpha must lie between 0 and 1, not 1.5"),
        ({"priority_beta": -0.5}, "priority_beta must lie between 0 and 1, not -0.5"),
        ({"priority_beta_steps": 0}, "priority_beta_steps must be 1 or more, not 0"),
        ({"n_step": 0}, "n_step must be 1 or more, not 0"),
        ({"target_update_interval": 0}, "target_update_interval must be 1 or more, not 0"),
        ({"tau": 0.0}, "tau must lie above 0 and be 1 at most, not 0.0"),
        ({"tau": 1.1}, "tau must lie above 0 and be 1 at most, not 1.1"),
        ({"batch_size": None}, "batch_size must be a number: minibatches are drawn from a replay memory"),
    ],
)
def test_impossible_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        DQN(**options)
    assert str(error.value) == said
