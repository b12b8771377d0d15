import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text

from actors import spaces
from actors.environments import EnvironmentInfo, describe
from actors.episode import Array
from actors.errors import UserError
from actors.making import make_gymnasium
from actors.parts import leaf_spaces
from actors.pictures import Picture, pictures_in
from actors.seeds import sub_seed
from actors.vectors import Environments, envpool_lacks, make_environments, require_envpool
from tests.actors.fake_environments import Spaces

BACKENDS = ["gymnasium", "envpool"]
both_backends = pytest.mark.parametrize("backend", BACKENDS)
OBSERVATIONS = Box(-1, 1, (2,), np.float32)


FAMILIES = """
import sys
from actors import envpool_families
from actors.vectors import make_environments

def loaded(*families):
    return [f"envpool.{family}" in sys.modules for family in families]

make_environments("Beresheet-v2", 1, 0, "envpool").reset()
print(*loaded("box2d", "mujoco", "atari"))
print(envpool_families.has("CartPole-v1"), envpool_families.has("Pong-v5"), *loaded("atari", "mujoco"))
print(envpool_families.has("Ant-v4"), envpool_families.has("CartPoll-v1"), *loaded("mujoco"))
"""


@pytest.fixture
def made() -> Iterator[Any]:
    """make_environments, whose environments are closed when the test ends."""
    everything: list[Environments] = []

    def make(*arguments: Any) -> Environments:
        everything.append(make_environments(*arguments))
        return everything[-1]

    yield make
    for environments in everything:
        environments.close()


@pytest.fixture
def register() -> Iterator[Any]:
    """gymnasium.register, undone when the test ends."""
    names: list[str] = []

    def add(name: str, **options: Any) -> str:
        gymnasium.register(name, **options)
        names.append(name)
        return name

    yield add
    for name in names:
        del gymnasium.registry[name]


def assert_refused(env_id: str, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        describe(env_id)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_lunar_lander_is_described() -> None:
    info = describe("LunarLander-v3")
    assert (info.env_id, info.reward_threshold, info.max_episode_steps) == ("LunarLander-v3", 200, 1000)
    spec = info.policy_spec(hidden_sizes=(32,), version=4)
    assert (spec.observation, spec.distribution, spec.action) == (spaces.Box((8,)), "categorical", spaces.Discrete(4))
    assert (spec.network.hidden_sizes, spec.version) == ((32,), 4)


@pytest.mark.parametrize("name", ["CartPole", "tests.actors.fake_environments:Obedient"])
def test_a_name_without_a_version_gets_the_one_that_it_stands_for(name: str) -> None:
    versions = {"CartPole": "CartPole-v1"}
    assert describe(name).env_id == versions.get(name, f"{name}-v0")


def test_beresheet_is_lunar_lander_with_less_time() -> None:
    lander, beresheet = describe("LunarLander-v3"), describe("Beresheet-v2")
    assert (beresheet.reward_threshold, beresheet.max_episode_steps) == (200, 300)
    assert beresheet.observation_space == lander.observation_space
    assert beresheet.action_space == lander.action_space


def test_continuous_actions_are_described_by_bounds_and_shape(register: Any) -> None:
    actions = Box(np.array([[-1, -2]], np.float32), np.array([[1, np.inf]], np.float32))
    register("Arm-v0", entry_point=Spaces, kwargs={"observation_space": OBSERVATIONS, "action_space": actions})
    spec = describe("Arm-v0").policy_spec()
    assert spec.distribution == "gaussian"
    assert spec.action == spaces.Box((1, 2), low=(-1, -2), high=(1, np.inf))
    assert spec.scale_actions


@pytest.mark.parametrize(
    ("env_id", "nearest"),
    [("LunarLandr-v3", "LunarLander-v3"), ("Bereshet-v2", "Beresheet-v2"), ("CartPoll-v1", "CartPole-v1")],
)
def test_an_unknown_environment_gets_the_nearest_name(env_id: str, nearest: str) -> None:
    assert_refused(env_id, f"unknown environment {env_id!r}", nearest)


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("LunarLander-v2", "LunarLander-v3"),
        ("Cart Pole", "is no environment: write wrappers so"),
        ("", "is no environment: give a Gymnasium id"),
        ("no_such_package:CartPole-v1", "no_such_package"),
        ("json:CartPoll-v1", "CartPole"),
        (":CartPole-v1", ""),
        ("json:CartPole-v1:more", ""),
    ],
)
def test_an_environment_that_cannot_be_made_says_why_in_one_line(env_id: str, reason: str) -> None:
    assert_refused(env_id, repr(env_id), reason)


def test_a_package_that_is_missing_is_named(register: Any) -> None:
    register("Elsewhere-v0", entry_point="no_such_package.environments:Elsewhere")
    assert_refused("Elsewhere-v0", "'Elsewhere-v0'", "no_such_package")


def test_a_module_that_registers_its_environment_is_imported() -> None:
    info = describe("tests.actors.fake_environments:Obedient-v0")
    assert info.action_space == Discrete(4)


SEEN = Dict({"a": OBSERVATIONS, "b": Dict({"c": Box(0, 255, (8, 8), np.uint8)})})


def test_boxes_of_bytes_are_pictures(register: Any) -> None:
    register("Seen-v0", entry_point=Spaces, kwargs={"observation_space": SEEN, "action_space": Discrete(2)})
    assert dict(pictures_in(describe("Seen-v0").observation)) == {"b.c": Picture((8, 8))}
    assert describe("CarRacing-v3").observation == Picture((96, 96, 3))
    stacked = describe("CarRacing-v3 | GrayscaleObservation | FrameStackObservation(stack_size=4)")
    assert stacked.observation == Picture((4, 96, 96), 4)
    parts = describe("tests.actors.fake_environments:Ticking-v0(parts=True) | FrameStackObservation(stack_size=3)")
    assert dict(leaf_spaces(parts.observation)) == {"eye": Picture((3, 20, 20), 3), "steps": spaces.Box((3, 1))}


@pytest.mark.parametrize("space", [Dict({"a": Text(2)}), Text(5)], ids=["Dict", "Text"])
def test_unsupported_observations_are_named_with_what_is_supported(register: Any, space: gymnasium.Space[Any]) -> None:
    register("Odd-v0", entry_point=Spaces, kwargs={"observation_space": space, "action_space": Discrete(2)})
    assert_refused("Odd-v0", f"Odd-v0 has observations {space}", "supported are Box, Discrete", "Dict and Tuple")


@pytest.mark.parametrize("space", [Box(0, 9, (2,), np.int32), Dict({"a": Text(2)})], ids=["integer Box", "Dict"])
def test_unsupported_actions_are_named_with_what_is_supported(register: Any, space: gymnasium.Space[Any]) -> None:
    register("Odd-v0", entry_point=Spaces, kwargs={"observation_space": OBSERVATIONS, "action_space": space})
    assert_refused("Odd-v0", f"Odd-v0 has actions {space}", "supported are Box, Discrete")


def test_auto_takes_envpool_where_it_has_the_environment(made: Any) -> None:
    assert made("LunarLander-v3", 2, 0).backend == "envpool"
    assert made("Beresheet-v2", 2, 0, "auto").backend == "envpool"


def test_auto_takes_gymnasium_elsewhere(made: Any) -> None:
    assert made("tests.actors.fake_environments:Echo-v0", 2, 0, "auto").backend == "gymnasium"


def test_a_back_end_can_be_forced(made: Any) -> None:
    assert made("CartPole-v1", 1, 0, "gymnasium").backend == "gymnasium"
    assert made("CartPole-v1", 1, 0, "envpool").backend == "envpool"


def test_only_the_families_that_fly_are_loaded() -> None:
    result = subprocess.run([sys.executable, "-c", FAMILIES], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["True False False", "True True True False", "True False True"]


def test_an_unknown_back_end_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown back end 'gymnasum'; did you mean gymnasium"):
        make_environments("CartPole-v1", 1, 0, "gymnasum")  # type: ignore[arg-type]


def test_envpool_declines_what_it_lacks() -> None:
    with pytest.raises(UserError, match=r"envpool back end cannot fly .*Echo-v0: EnvPool does not have it"):
        make_environments("tests.actors.fake_environments:Echo-v0", 1, 0, "envpool")


@pytest.mark.parametrize(
    "change",
    [
        {"action_space": Discrete(3)},
        {"action_space": Box(-1, 1, (2,), np.float32)},
        {"observation_space": Box(-1, 1, (5,), np.float32)},
    ],
)
def test_envpool_declines_other_spaces_than_its_own(change: dict[str, Any]) -> None:
    info = describe("CartPole-v1")
    assert envpool_lacks(info) is None
    other: EnvironmentInfo = dataclasses.replace(info, **change)
    with pytest.raises(UserError, match="cannot fly CartPole-v1: its spaces there are"):
        require_envpool(other)


@pytest.mark.parametrize(
    ("stored", "flown"),
    [
        *((name, "float32") for name in ("uint8", "int16", "float16", "float32")),
        *((name, "float64") for name in ("int32", "int64", "float64")),
    ],
)
def test_policies_see_normalised_observations_in_a_type_that_holds_them(stored: str, flown: str) -> None:
    info = dataclasses.replace(describe("CartPole-v1"), observation_space=Box(0, 100, (4,), np.dtype(stored).type))
    assert info.policy_spec(normalize_observations=True).observation.dtype == flown
    assert info.policy_spec().observation.dtype == "float32"


@both_backends
@pytest.mark.parametrize("env_id", ["LunarLander-v3", "LunarLanderContinuous-v3", "CartPole-v1", "Acrobot-v1"])
def test_rows_have_the_promised_shapes_and_types(made: Any, env_id: str, backend: str) -> None:
    info = describe(env_id)
    environments = made(env_id, 3, 0, backend)
    shape = (3, *info.observation_space.shape)
    observations = environments.reset()
    assert (observations.shape, observations.dtype) == (shape, np.float32)
    actions = np.stack([info.action_space.sample() for _ in range(3)])
    observations, rewards, terminated, truncated = environments.step(actions, np.arange(3))
    assert (observations.shape, observations.dtype) == (shape, np.float32)
    assert (rewards.shape, rewards.dtype) == ((3,), np.float32)
    assert (terminated.shape, terminated.dtype) == ((3,), bool)
    assert (truncated.shape, truncated.dtype) == ((3,), bool)


@both_backends
def test_the_step_after_the_last_is_a_reset(made: Any, backend: str) -> None:
    environments = made("CartPole-v1", 1, 0, backend)
    slots, right = np.arange(1), np.ones(1, np.int64)
    environments.reset()
    for _ in range(3):  # episodes
        terminated = np.zeros(1, bool)
        while not terminated[0]:
            observations, rewards, terminated, truncated = environments.step(right, slots)
            assert rewards[0] == 1
            assert not truncated[0]
        assert (
            np.abs(observations).max() > 0.2
        )  # the pole fell: the episode's last observation, not the next one's first
        observations, rewards, terminated, truncated = environments.step(right, slots)
        assert (rewards[0], terminated[0], truncated[0]) == (0, False, False)
        assert np.abs(observations).max() <= 0.05


@both_backends
def test_a_part_of_the_slots_steps_in_their_order(made: Any, backend: str) -> None:
    together, apart = (made("LunarLander-v3", 6, 3, backend) for _ in range(2))
    np.testing.assert_array_equal(together.reset(), apart.reset())
    rng = np.random.default_rng(0)
    everyone = np.arange(6)
    for _ in range(30):
        actions, chosen = rng.integers(0, 4, 6), rng.random(6) < 0.5
        expected = together.step(actions, everyone)
        for part in (everyone[chosen], everyone[~chosen]):
            if len(part):
                for column, wanted in zip(apart.step(actions[part], part), expected, strict=True):
                    np.testing.assert_array_equal(column, wanted[part])


def fly(environments: Environments, action_space: gymnasium.Space[Any], steps: int = 300) -> list[Array]:
    """All that comes back of random actions, a reset in the middle included."""
    action_space.seed(1)
    seen = [environments.reset()]
    for step in range(steps):
        if step == steps // 2:
            seen.append(environments.reset())
        actions = np.stack([action_space.sample() for _ in range(environments.num_envs)])
        seen += environments.step(actions, np.arange(environments.num_envs))
    return seen


@both_backends
@pytest.mark.parametrize("env_id", ["LunarLander-v3", "LunarLanderContinuous-v3", "CartPole-v1"])
def test_one_seed_flies_the_same_twice(made: Any, env_id: str, backend: str) -> None:
    actions = describe(env_id).action_space
    first, second, other = (fly(made(env_id, 3, seed, backend), actions) for seed in (5, 5, 6))
    assert any(column.dtype == bool and column.any() for column in first)  # some episode ended, and another began
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).any()


@both_backends
def test_a_seed_begins_random_streams_anew(made: Any, backend: str) -> None:
    environments, other = made("LunarLander-v3", 3, 1, backend), made("LunarLander-v3", 3, 2, backend)
    actions = np.zeros(3, np.int64)
    environments.reset()
    environments.step(actions, np.arange(3))
    first, second = environments.reset(sub_seed(5, 6)), other.reset(sub_seed(5, 6))
    np.testing.assert_array_equal(first, second)
    for one, two in zip(environments.step(actions, np.arange(3)), other.step(actions, np.arange(3)), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (environments.reset() != first).any()
    assert len(np.unique(first, axis=0)) == 3


@pytest.mark.parametrize("seed", [0, 3, 5, 2**31 - 1])
def test_any_seed_of_a_run_is_flown(made: Any, seed: int) -> None:
    """By an environment that hands its seed to what takes 31 bits; EnvPool is such a one."""
    for env_id, backend in (("tests.actors.fake_environments:Coin-v0", "gymnasium"), ("CartPole-v1", "envpool")):
        environments = made(env_id, 64, sub_seed(seed, 10**6, 999), backend)
        assert len(np.unique(environments.reset(), axis=0)) == 64


@both_backends
def test_slots_and_successive_episodes_differ(made: Any, backend: str) -> None:
    environments = made("CartPole-v1", 3, 0, backend)
    starts = np.concatenate([environments.reset(), environments.reset()])
    assert len(np.unique(starts, axis=0)) == 6


def hover(observations: Array) -> Array:
    """Actions that keep a lander upright and high, so that only a time limit ends the episode."""
    x, y, vx, vy, angle, spin = observations[:, :6].T
    turn = np.clip(0.5 * x + vx, -0.4, 0.4)
    twist = 0.5 * (turn - angle) - spin
    lift = 0.5 * (1.0 - y) - 0.5 * vy
    upward = (lift > np.abs(twist)) & (lift > 0.05)
    return np.where(upward, 2, np.where(twist < -0.05, 3, np.where(twist > 0.05, 1, 0)))


@both_backends
def test_beresheet_is_truncated_after_300_steps(made: Any, backend: str) -> None:
    environments = made("Beresheet-v2", 4, 0, backend)
    observations, slots = environments.reset(), np.arange(4)
    for _ in range(299):
        observations, _, terminated, truncated = environments.step(hover(observations), slots)
        assert not (terminated | truncated).any()
    _, _, terminated, truncated = environments.step(hover(observations), slots)
    assert truncated.all()
    assert not terminated.any()


def test_gymnasium_truncates_beresheet_too_when_it_is_evaluated() -> None:
    env = make_gymnasium("Beresheet-v2")
    observation, _ = env.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        observation, _, terminated, truncated, _ = env.step(hover(observation[None])[0])
        assert not terminated
        steps += 1
    assert steps == 300
    env.close()
