import pickle
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2
import numpy as np
import pytest

from actors.environments import describe
from actors.errors import EnvironmentFault, UserError
from actors.evaluation import fly_episodes, record_video
from actors.making import make_gymnasium
from actors.policy import Policy
from tests.actors.examples import Counting, policy_for, stubborn_policy
from tests.actors.fake_environments import RAISE, Wrong

SEEDS = list(range(10_000, 10_020))


class EndlessFilm(Wrong):
    """Shows the same picture for ever."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def policy() -> Policy:
    """For CartPole, and good enough that episodes differ much in length."""
    spec = describe("CartPole-v1").policy_spec(hidden_sizes=())
    leaning = np.array([0, 0, 1, 0], np.float32)
    return Policy(spec, {"w0": np.stack([-leaning, leaning], axis=1), "b0": np.zeros(2, np.float32)})


def fly_one(policy: Policy, seed: int) -> tuple[float, int]:
    """An episode as one would write it down."""
    env = make_gymnasium(policy.spec.env_id)
    observation, _ = env.reset(seed=seed)
    total, length, done = 0.0, 0, False
    while not done:
        action = policy.act(np.asarray(observation, np.float32)[None])[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total, length, done = total + float(reward), length + 1, terminated or truncated
    env.close()
    return total, length


@pytest.mark.parametrize("slots", [1, 2, 64])
def test_a_memory_lasts_as_long_as_its_episode(slots: int, tmp_path: Path) -> None:
    plain = policy_for("tests.actors.fake_environments:Counted-v0")
    policy = Counting(plain.spec, plain.weights)
    returns, lengths, _ = fly_episodes(policy, range(8), slots=slots)
    np.testing.assert_array_equal(lengths, 3 + np.arange(8) % 3)
    np.testing.assert_array_equal(returns, lengths)
    assert record_video(policy, tmp_path / "film.mp4", seed=0, episodes=3) == [3, 4, 5]


def test_a_film_of_who_acts_for_a_return_is_sampled(tmp_path: Path) -> None:
    network: dict[str, Any] = {"memory": "transformer", "memory_size": 8}
    policy = policy_for("tests.actors.fake_environments:Counted-v0", target_return=3.0, **network)
    policy = Policy(policy.spec, policy.weights | {"w1": policy.weights["w1"] / 10})  # unsure of itself
    filmed = record_video(policy, tmp_path / "film.mp4", seed=0, episodes=6)
    sampled, greedy = (
        [fly_episodes(policy, [seed], deterministic)[0][0] for seed in range(6)] for deterministic in (False, True)
    )
    assert filmed == sampled != greedy
    assert record_video(policy, tmp_path / "film.mp4", seed=0, episodes=6, deterministic=True) == greedy


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_each_seed_gets_its_own_result_whatever_the_slots(policy: Policy, slots: int) -> None:
    expected = [fly_one(policy, seed) for seed in SEEDS]
    assert len({length for _, length in expected}) > 5
    returns, lengths, _ = fly_episodes(policy, SEEDS, slots=slots)
    assert list(zip(returns.tolist(), lengths.tolist(), strict=True)) == expected


def test_results_follow_the_order_of_the_seeds(policy: Policy) -> None:
    forward, *_ = fly_episodes(policy, SEEDS, slots=3)
    backward, *_ = fly_episodes(policy, SEEDS[::-1], slots=3)
    np.testing.assert_array_equal(backward, forward[::-1])


def test_a_seed_flown_twice_counts_twice(policy: Policy) -> None:
    returns, *_ = fly_episodes(policy, [SEEDS[0], SEEDS[0], SEEDS[1]], slots=2)
    assert returns[0] == returns[1]
    assert len(returns) == 3


def test_continuous_and_shaped_actions_are_flown() -> None:
    echo = policy_for("tests.actors.fake_environments:Echo-v0")
    returns, lengths, _ = fly_episodes(echo, [0, 1, 2])
    assert lengths.tolist() == [10, 10, 10]
    assert len(set(returns)) == 1  # nothing is random in it
    assert np.abs(returns).max() <= 40


def test_sampled_episodes_repeat_and_differ_from_greedy_ones() -> None:
    policy = policy_for("CartPole-v1", seed=2)
    sampled, again = (fly_episodes(policy, SEEDS, deterministic=False)[0] for _ in range(2))
    np.testing.assert_array_equal(sampled, again)
    assert (sampled != fly_episodes(policy, SEEDS)[0]).any()
    assert (sampled != fly_episodes(policy, [seed + 1 for seed in SEEDS], deterministic=False)[0]).any()


def test_another_environment_can_be_flown_than_the_policy_s_own() -> None:
    _, lengths, _ = fly_episodes(stubborn_policy("LunarLander-v3", 0), [0, 1])
    _, in_beresheet, _ = fly_episodes(stubborn_policy("LunarLander-v3", 0), [0, 1], env_id="Beresheet-v2")
    np.testing.assert_array_equal(in_beresheet, lengths)  # the same world: both fall for less than 300 steps
    _, in_cart_pole, _ = fly_episodes(stubborn_policy("CartPole-v0", 0), [0], env_id="CartPole-v1")
    assert in_cart_pole == fly_episodes(stubborn_policy("CartPole-v1", 0), [0])[1]


def test_an_episode_without_an_end_is_cut_and_counted(policy: Policy) -> None:
    endless, limited = (stubborn_policy(f"{name}-v0", 0) for name in ("Endless", "Limited"))
    for flown, expected in ((endless, 50), (limited, 70)):  # a limit of the environment's own stays
        returns, lengths, cut = fly_episodes(flown, [0, 1, 2], slots=2, max_episode_steps=50)
        assert returns.tolist() == lengths.tolist() == [expected] * 3
        assert cut.all()
    _, lengths, cut = fly_episodes(policy, SEEDS)
    np.testing.assert_array_equal(cut, lengths == 500)
    assert not cut.all()


def test_a_film_without_an_end_is_cut(tmp_path: Path) -> None:
    gymnasium.register("EndlessFilm-v0", entry_point=EndlessFilm, disable_env_checker=True)
    try:
        policy = stubborn_policy("EndlessFilm-v0", 0)
        assert record_video(policy, tmp_path / "replay.mp4", seed=0, episodes=2, max_episode_steps=7) == [7, 7]
    finally:
        del gymnasium.registry["EndlessFilm-v0"]


@pytest.mark.parametrize(("method", "env_id"), [("step", "Obedient-v0"), ("step", "OldStep-v0")])
def test_an_environment_that_raises_is_named_with_its_method(method: str, env_id: str) -> None:
    with pytest.raises(EnvironmentFault, match=f"^{env_id}: {method} raised (RuntimeError|ValueError): ") as caught:
        fly_episodes(stubborn_policy(env_id, RAISE if env_id == "Obedient-v0" else 0), [0])
    assert "\n" not in str(caught.value)
    assert "Traceback" in caught.value.details
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.details) == (str(caught.value), caught.value.details)


def test_no_seeds_are_no_episodes(policy: Policy) -> None:
    returns, lengths, _ = fly_episodes(policy, [])
    assert len(returns) == len(lengths) == 0


def test_no_slots_are_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="slots"):
        fly_episodes(policy, SEEDS, slots=0)


def test_a_video_shows_every_step(tmp_path: Path, policy: Policy) -> None:
    path = tmp_path / "replay.mp4"
    returns = record_video(policy, path, seed=SEEDS[0], episodes=2)
    assert returns == [fly_one(policy, seed)[0] for seed in SEEDS[:2]]
    sampled = record_video(policy, tmp_path / "sampled.mp4", seed=SEEDS[0], episodes=2, deterministic=False)
    assert sampled == fly_episodes(policy, SEEDS[:2], deterministic=False)[0].tolist() != returns
    frames = imageio.v2.mimread(path, memtest=False)
    assert len(frames) == sum(returns)  # a point and a picture for each step
    assert frames[0].shape == (400, 600, 3)
    assert frames[0].std() > 1  # there is something to see
    assert (frames[0] != frames[-1]).any()


def test_a_video_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "replay.mp4"
    path.write_text("old")
    assert record_video(stubborn_policy("Filmed-v0", 0), path, seed=0, episodes=2) == [4, 4]
    assert len(imageio.v2.mimread(path)) == 8
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "replay.mp4"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="the camera fell over"):
        record_video(stubborn_policy("FallingCamera-v0", 0), path, seed=0)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("env_id", ["Worded-v0", "Unseen-v0"])
def test_an_environment_without_pictures_is_named(tmp_path: Path, env_id: str) -> None:
    with pytest.raises(UserError, match=env_id) as caught:
        record_video(stubborn_policy(env_id, 0), tmp_path / "replay.mp4", seed=0)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_may_be_left_out(tmp_path: Path) -> None:
    record_video(stubborn_policy("Filmed-v0", 0), tmp_path / "replay", seed=0, episodes=1)
    assert (tmp_path / "replay.mp4").is_file()


def test_an_episode_that_is_sampled_follows_from_its_seed_alone() -> None:
    policy = policy_for("CartPole-v1", seed=3)
    together, _, _ = fly_episodes(policy, range(12), deterministic=False, slots=5)
    alone = [fly_episodes(policy, [seed], deterministic=False)[0][0] for seed in range(12)]
    np.testing.assert_array_equal(together, alone)
