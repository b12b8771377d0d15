from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.actor import RolloutActor
from actors.environments import describe
from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.evaluation import fly_episodes
from actors.policy import Policy
from actors.rollout import Rollout, RolloutConfig
from actors.seeds import sub_seed
from actors.spaces import Box, Discrete
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import leaves
from actors.vectors import GymnasiumEnvironments, make_environments
from tests.actors.examples import Counting, assert_same_batches, policy_for, random_policy
from tests.actors.fake_environments import Scripted, steps_environments

STEPS = PolicySpec("Steps-v0", Box((3,)), Discrete(2), "categorical", network=PolicyNetwork(()), version=9)
POLICY = Policy(STEPS, {"w0": np.zeros((3, 2), np.float32), "b0": np.log(np.array([0.3, 0.7], np.float32))})
ECHO = "tests.actors.fake_environments:Echo-v0"


def steps_rollout(lengths: Sequence[Sequence[int]]) -> Rollout:
    return Rollout(steps_environments(lengths), seed=0)


def segments(batch: EpisodeBatch) -> list[tuple[list[list[int]], list[int], str]]:
    """For each segment: the (slot, episode, step) it observed, its final observation, and how it ended."""
    found = []
    for i in range(batch.num_segments):
        segment = batch.segments(i, i + 1)
        end = {(True, False): "terminated", (False, True): "truncated", (False, False): "goes on"}[
            bool(segment.terminated[0]), bool(segment.truncated[0])
        ]
        found.append(
            (segment.observations.astype(int).tolist(), segment.final_observations[0].astype(int).tolist(), end)
        )
    return found


def test_fragments_worked_by_hand() -> None:
    rollout = steps_rollout([[3], [5]])

    first = rollout.fragments(POLICY, 5)
    assert segments(first) == [
        ([[0, 0, 0], [0, 0, 1], [0, 0, 2]], [0, 0, 3], "terminated"),
        ([[0, 1, 0]], [0, 1, 1], "goes on"),  # the fourth row was the reset
        ([[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 0, 3], [1, 0, 4]], [1, 0, 5], "terminated"),
    ]
    assert first.episode_lengths.tolist() == [3, 5]

    second = rollout.fragments(POLICY, 5)
    assert segments(second) == [
        ([[0, 1, 1], [0, 1, 2]], [0, 1, 3], "truncated"),
        ([[0, 2, 0], [0, 2, 1]], [0, 2, 2], "goes on"),
        ([[1, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 3]], [1, 1, 4], "goes on"),  # the first row was the reset
    ]
    assert second.episode_lengths.tolist() == [3]


@pytest.mark.parametrize("name", ["Double", "Half", "Short", "Scalar"])
def test_actions_are_of_the_environments_own_type_at_their_bounds(name: str) -> None:
    """These environments raise at any other."""
    env_id = f"tests.actors.fake_environments:{name}-v0"
    policy = policy_for(env_id)
    if "log_std" in policy.weights:
        policy.weights["b1"][:] = np.array([50, -50], np.float32)[: policy.weights["b1"].size]
    Rollout(make_environments(env_id, 3, seed=0), seed=0).fragments(policy, 4)
    fly_episodes(policy, range(3))


def test_a_memory_lasts_as_long_as_its_episode() -> None:
    policy = Counting(POLICY.spec, POLICY.weights)
    rollout = steps_rollout([[3, 1], [5], [2]])
    batches = [*(rollout.fragments(policy, n_steps) for n_steps in (5, 3, 4)), rollout.episodes(policy, 3)]
    batches.append(rollout.fragments(policy, 4))
    for batch in batches:
        np.testing.assert_array_equal(batch.actions, batch.observations[:, 2] % 2)
        starts = np.append(0, np.cumsum(batch.segment_lengths)[:-1])
        np.testing.assert_array_equal(batch.memories["steps"][:, 0], batch.observations[starts, 2])


def test_returns_are_those_of_whole_episodes_across_fragments() -> None:
    rollout = steps_rollout([[3], [5]])
    batches = [rollout.fragments(POLICY, 5) for _ in range(3)]
    actions_of_the_second = [*batches[0].actions[3:4], *batches[1].actions[:2]]
    assert batches[1].episode_returns.tolist() == [3 * 1000 + 10 + 20 + 30 + sum(actions_of_the_second)]
    everything = EpisodeBatch.concatenate(batches)
    for slot, length in enumerate([3, 5]):
        rows = everything.observations[:, 0] == slot
        whole = int(rows.sum()) // length
        expected = everything.rewards[rows][: whole * length].reshape(whole, length).sum(axis=1)
        flown = [
            total
            for total, n in zip(everything.episode_returns, everything.episode_lengths, strict=True)
            if n == length
        ]
        assert flown == expected.tolist()


def expected_rewards(batch: EpisodeBatch) -> Array:
    _, episode, step = batch.observations.T
    return np.asarray(1000 * episode + 10 * (step + 1) + batch.actions)


@settings(deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=4),
    fragments=st.lists(st.integers(2, 9), min_size=1, max_size=6),
)
def test_every_step_is_flown_once_and_in_order(lengths: list[list[int]], fragments: list[int]) -> None:
    rollout = steps_rollout(lengths)
    everything = EpisodeBatch.concatenate([rollout.fragments(POLICY, n_steps) for n_steps in fragments])
    np.testing.assert_array_equal(everything.rewards, expected_rewards(everything))
    finished: list[int] = []
    for slot, of_slot in enumerate(lengths):
        flown = everything.observations[everything.observations[:, 0] == slot][:, 1:].astype(int).tolist()
        episode_lengths = of_slot + [of_slot[-1]] * sum(fragments)
        stream = [[episode, step] for episode, length in enumerate(episode_lengths) for step in range(length)]
        assert flown == stream[: len(flown)]
        ended = flown[-1][0] + (flown[-1][1] == episode_lengths[flown[-1][0]] - 1)
        assert len(flown) >= sum(fragments) - ended  # no row is lost but for the resets
        finished += episode_lengths[:ended]
    assert sorted(everything.episode_lengths.tolist()) == sorted(finished)


@settings(deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=4),
    quota=st.integers(1, 4),
)
def test_every_slot_flies_its_quota_of_whole_episodes(lengths: list[list[int]], quota: int) -> None:
    batch = steps_rollout(lengths).episodes(POLICY, quota)
    expected = [length for of_slot in lengths for length in (of_slot + [of_slot[-1]] * quota)[:quota]]
    assert batch.segment_lengths.tolist() == expected
    assert batch.episode_lengths.tolist() == expected
    np.testing.assert_array_equal(batch.rewards, expected_rewards(batch))
    np.testing.assert_array_equal(batch.terminated, [episode % 2 == 0 for _ in lengths for episode in range(quota)])
    np.testing.assert_array_equal(batch.truncated, ~batch.terminated)


def test_short_episodes_have_no_advantage() -> None:
    batch = steps_rollout([[1], [50], [1], [50]]).episodes(POLICY, 3)
    assert batch.episode_lengths.tolist() == [1, 1, 1, 50, 50, 50, 1, 1, 1, 50, 50, 50]
    assert batch.episode_lengths.mean() == 25.5


def test_whole_episodes_begin_anew_each_time() -> None:
    rollout = steps_rollout([[3], [5]])
    rollout.fragments(POLICY, 4)  # leaves episodes unfinished
    for _ in range(2):
        batch = rollout.episodes(POLICY, 1)
        assert batch.observations[:, 2].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
        assert batch.episode_lengths.tolist() == [3, 5]
        np.testing.assert_array_equal(batch.episode_returns, np.add.reduceat(batch.rewards, [0, 3]))


def test_fragments_go_on_after_whole_episodes() -> None:
    rollout = steps_rollout([[3], [5]])
    rollout.episodes(POLICY, 1)
    batch = rollout.fragments(POLICY, 4)
    assert batch.observations[:, 2].tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.episode_lengths.tolist() == [3]


def test_more_steps_than_noise_is_drawn_for_at_once() -> None:
    batch = steps_rollout([[1000]]).fragments(POLICY, 400)
    assert batch.observations[:, 2].tolist() == list(range(400))


def test_segments_carry_the_version_that_flew_them() -> None:
    batch = steps_rollout([[3], [5]]).fragments(POLICY, 5)
    assert batch.policy_version.tolist() == [9, 9, 9]


def test_columns_have_the_promised_types() -> None:
    batch = steps_rollout([[3], [5]]).fragments(POLICY, 5)
    columns = dict(leaves(vars(batch)))
    assert {name: column.dtype.name for name, column in columns.items()} == {
        "observations": "float32",
        "actions": "int64",
        "rewards": "float32",
        "notes.log_prob": "float32",
        "segment_lengths": "int32",
        "final_observations": "float32",
        "terminated": "bool",
        "truncated": "bool",
        "policy_version": "int64",
        "episode_returns": "float64",
        "episode_lengths": "int64",
    }
    assert all(column.flags.c_contiguous for column in columns.values())


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLanderContinuous-v3"])
def test_log_probs_are_those_of_the_policy(env_id: str, backend: Any) -> None:
    policy = policy_for(env_id)
    batch = Rollout(make_environments(env_id, 5, 0, backend), seed=0).fragments(policy, 40)
    expected = policy.distribution.log_prob(policy.forward(batch.observations), batch.actions)
    np.testing.assert_allclose(batch.notes["log_prob"], expected, rtol=1e-4, atol=1e-5)


def test_actions_are_sampled_as_often_as_they_should_be() -> None:
    actions = steps_rollout([[7]] * 20).fragments(POLICY, 500).actions
    assert abs(actions.mean() - 0.7) < 5 * np.sqrt(0.21 / len(actions))


def test_continuous_actions_are_flown_clipped_and_recorded_as_sampled() -> None:
    policy = policy_for(ECHO)
    policy.weights["log_std"][:] = 1
    policy = Policy(policy.spec, policy.weights)
    batch = Rollout(GymnasiumEnvironments(ECHO, 2, 0), seed=0).fragments(policy, 10)
    assert batch.actions.shape == (20, 4)
    assert np.abs(batch.actions).max() > 2
    flown = np.clip(batch.actions, -1, 1)
    np.testing.assert_allclose(batch.rewards, flown.sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(batch.observations[1:10].reshape(9, 4), flown[:9])  # the action before
    np.testing.assert_array_equal(batch.final_observations.reshape(2, 4), flown[[9, 19]])


def scripted_rollout(observations: list[float], rewards: list[float]) -> tuple[Rollout, Policy]:
    gymnasium.registry.pop("Scripted-v0", None)
    options: dict[str, Any] = {"observations": observations, "rewards": rewards}
    gymnasium.register(
        "Scripted-v0", entry_point=f"{Scripted.__module__}:Scripted", kwargs=options, disable_env_checker=True
    )
    return Rollout(GymnasiumEnvironments("Scripted-v0", 2, 0), seed=0), policy_for("Scripted-v0", activation="tanh")


def test_the_script_is_flown_as_written() -> None:
    rollout, policy = scripted_rollout([1, 2, 3], [4, 5])
    batch = rollout.episodes(policy, 1)
    assert batch.observations.ravel().tolist() == [1, 2, 1, 2]
    assert batch.final_observations.ravel().tolist() == [3, 3]
    assert batch.rewards.tolist() == [4, 5, 4, 5]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("place", "words"),
    [("first", "observation"), ("middle", "observation"), ("final", "final_observations"), ("reward", "rewards")],
)
def test_a_number_that_is_none_names_the_environment(value: float, place: str, words: str) -> None:
    observations, rewards = [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0]
    if place == "reward":
        rewards[1] = value
    else:
        observations[{"first": 0, "middle": 2, "final": 3}[place]] = value
    rollout, policy = scripted_rollout(observations, rewards)
    with pytest.raises(NonFiniteError, match=rf"^Scripted-v0: .*{words}"):
        rollout.episodes(policy, 2)


def test_an_overflowing_policy_is_not_blamed_on_the_observation() -> None:
    rollout, policy = scripted_rollout([1, 2, 3], [4, 5])
    policy.weights["b1"][:] = np.inf
    with pytest.raises(NonFiniteError, match="Scripted-v0: the policy output"):
        rollout.episodes(policy, 1)


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLanderContinuous-v3"])
@pytest.mark.parametrize("config", [RolloutConfig(3, 60), RolloutConfig(3, None, 2)], ids=["fragments", "episodes"])
def test_one_seed_flies_the_same_twice(env_id: str, backend: Any, config: RolloutConfig) -> None:
    policy = policy_for(env_id)

    def fly(seed: int) -> EpisodeBatch:
        rollout = Rollout(make_environments(env_id, config.n_envs, seed, backend), seed)
        return EpisodeBatch.concatenate([rollout.collect(policy, config) for _ in range(2)])

    batch, other = fly(1), fly(2)
    assert_same_batches(batch, fly(1))
    count = min(batch.num_steps, other.num_steps)
    assert (batch.observations[:count] != other.observations[:count]).any()


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_a_seed_decides_whole_episodes_whatever_was_flown_before(backend: Any) -> None:
    policy = policy_for("LunarLander-v3")

    def fly(before: int) -> EpisodeBatch:
        rollout = Rollout(make_environments("LunarLander-v3", 3, before, backend), before)
        for _ in range(before):
            rollout.episodes(policy, 1)
        return rollout.episodes(policy, 2, seed=sub_seed(7, 1))

    assert_same_batches(fly(0), fly(2))


def test_the_seed_decides_the_actions_too() -> None:
    actions = [Rollout(steps_environments([[100]]), seed).fragments(POLICY, 100).actions for seed in (0, 0, 1)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert (actions[0] != actions[2]).any()


def test_an_actor_reports_what_it_flew() -> None:
    config = RolloutConfig(n_envs=4, n_steps=None, episodes_per_env=2, backend="gymnasium")
    actor = RolloutActor()
    assert actor.prepare("CartPole-v1", config, seed=0) == "gymnasium"
    policy = random_policy(describe("CartPole-v1").policy_spec(hidden_sizes=(8,), version=5))
    batch, report = actor.collect(policy)
    assert (report.num_steps, report.policy_version) == (batch.num_steps, 5)
    assert len(report.episode_returns) == 8
    np.testing.assert_array_equal(report.episode_returns, batch.episode_returns)
    np.testing.assert_array_equal(report.episode_lengths, batch.episode_lengths)
    assert report.seconds > 0


@pytest.mark.parametrize(("env_id", "length"), [("Endless-v0", 30), ("Limited-v0", 70)])
def test_whole_episodes_without_an_end_are_cut(env_id: str, length: int) -> None:
    actor, env_id = RolloutActor(), f"tests.actors.fake_environments:{env_id}"
    actor.prepare(env_id, RolloutConfig(2, None, 3, max_episode_steps=30, backend="gymnasium"), seed=0)
    batch, _ = actor.collect(policy_for(env_id), seed=0)
    assert batch.segment_lengths.tolist() == batch.episode_lengths.tolist() == [length] * 6
    assert batch.truncated.all()
    assert not batch.terminated.any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_episode_steps": 0}, "max_episode_steps must be 1 or more, not 0"),
        ({"n_steps": None}, "set either n_steps or episodes_per_env"),
        ({"episodes_per_env": 1}, "set either n_steps or episodes_per_env"),
        ({"n_steps": 1}, "n_steps must be 2 or more, not 1"),
        ({"n_envs": 0}, "n_envs must be 1 or more, not 0"),
        ({"n_steps": None, "episodes_per_env": -1}, "episodes_per_env must be 1 or more, not -1"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RolloutConfig(**fields)
