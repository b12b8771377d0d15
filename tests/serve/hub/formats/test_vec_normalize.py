"""Statistics of observations from pickles that Stable-Baselines3's own VecNormalize has saved."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.environments import describe
from actors.errors import UserError
from serve.hub.formats.vec_normalize import read_vec_normalize, statistics_beside

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

PENDULUM = describe("Pendulum-v1")


def flown(env_id: str = "Pendulum-v1", **kwargs: Any) -> Any:
    """Statistics of some steps."""
    env = vec_env.VecNormalize(vec_env.DummyVecEnv([lambda: gymnasium.make(env_id)] * 2), **kwargs)
    env.reset()
    for _ in range(30):
        env.step(np.array([env.action_space.sample() for _ in range(2)]))
    return env


@pytest.fixture(scope="module")
def pendulum() -> Any:
    return flown()


def changed(env: Any, change: Callable[[dict[str, Any]], object], path: Path) -> Path:
    """The pickle of one of whose attributes some were changed."""
    twin = pickle.loads(pickle.dumps(env))
    twin.class_attributes, twin.returns = {}, None  # not saved, but missed when it is saved again
    change(vars(twin))
    twin.save(path)
    return path


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_statistics_are_those_that_were_saved(pendulum: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(pendulum, protocol))
    statistics = read_vec_normalize(tmp_path / "v.pkl")
    assert statistics is not None
    np.testing.assert_array_equal(statistics.mean, pendulum.obs_rms.mean)
    np.testing.assert_array_equal(statistics.std, np.sqrt(pendulum.obs_rms.var + pendulum.epsilon))
    assert statistics.clip == 10
    weights = statistics.weights(PENDULUM)
    assert {name: (array.shape, array.dtype.name) for name, array in weights.items()} == {
        "observation_mean": ((3,), "float32"),
        "observation_std": ((3,), "float32"),
    }


@pytest.mark.parametrize("dtype", [">f8", "<f4", "=f8", "<i2"])
def test_numbers_of_any_type_and_order_are_read(pendulum: Any, dtype: str, tmp_path: Path) -> None:
    moments = np.asfortranarray(np.arange(1, 7).reshape(2, 3).astype(dtype))
    path = changed(pendulum, lambda state: vars(state["obs_rms"]).update(mean=moments, var=moments), tmp_path / "v.pkl")
    statistics = read_vec_normalize(path)
    assert statistics is not None
    np.testing.assert_array_equal(statistics.mean, np.arange(1, 7))


def test_rewards_alone_are_no_statistics_of_observations(tmp_path: Path) -> None:
    flown(norm_obs=False).save(tmp_path / "v.pkl")
    assert read_vec_normalize(tmp_path / "v.pkl") is None


def of_moments(**moments: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: vars(state["obs_rms"]).update(moments)


class Harmful:
    """Executes something when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "objects": (of_moments(mean=np.array([None] * 3)), "its mean is no array of numbers"),
    "texts": (of_moments(mean=np.array(["a"] * 3)), "its mean is no array of numbers"),
    "complex numbers": (of_moments(var=np.ones(3, complex)), "its var is no array of numbers"),
    "a list": (of_moments(var=[1.0] * 3), "its var is no array of numbers"),
    "nothing": (of_moments(mean=np.zeros(0), var=np.zeros(0)), "its mean is no array of numbers"),
    "no mean": (lambda state: vars(state["obs_rms"]).pop("mean"), "its mean is no array of numbers"),
    "other variances": (of_moments(var=np.ones(4)), r"means of shape \(3,\), and variances of shape \(4,\)"),
    "a NaN": (of_moments(mean=np.full(3, np.nan)), "is not finite"),
    "a negative variance": (of_moments(var=-np.ones(3)), "a variance is negative"),
    "no moments": (lambda state: state.pop("obs_rms"), "its obs_rms is missing"),
    "several parts": (lambda state: state.update(obs_rms={"a": state["obs_rms"]}), "several parts"),
    "no epsilon": (lambda state: state.update(epsilon=None), "its epsilon is no array of numbers"),
    "epsilons": (lambda state: state.update(epsilon=np.ones(2)), "its epsilon is no number"),
    "a huge epsilon": (lambda state: state.update(epsilon=10**400), "its epsilon is no array of numbers"),
    "a negative epsilon": (lambda state: state.update(epsilon=-1), "which are to be positive"),
    "a command": (lambda state: state.update(old_obs=Harmful()), f"it names {os.system.__module__}.system"),
    "a class of one's own": (lambda state: state.update(old_obs=flown), "it names tests."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_statistics_is_refused_in_one_line(name: str, pendulum: Any, tmp_path: Path) -> None:
    change, said = REFUSED[name]
    changed(pendulum, change, tmp_path / "v.pkl")
    with pytest.raises(UserError, match=said) as refused:
        read_vec_normalize(tmp_path / "v.pkl")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'v.pkl'} holds no statistics of VecNormalize")


def test_an_array_that_says_it_is_huge_is_refused(pendulum: Any, tmp_path: Path) -> None:
    data = pickle.dumps(pendulum.obs_rms.mean, 3)
    assert data.count(b"K\x03\x85") == 1, "its shape, (3,)"
    whole = pickle.dumps(pendulum, 3)
    start = whole.index(b"mean")
    huge = whole[:start] + whole[start:].replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85", 1)
    (tmp_path / "v.pkl").write_bytes(huge)
    with pytest.raises(UserError, match="its mean is no array of numbers"):
        read_vec_normalize(tmp_path / "v.pkl")


def test_other_pickles_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.pkl").write_bytes(pickle.dumps({"norm_obs": False}))
    with pytest.raises(UserError, match="it is the pickle of something else"):
        read_vec_normalize(tmp_path / "v.pkl")
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        read_vec_normalize(tmp_path / "w.pkl")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_vec_normalize(tmp_path)


def test_statistics_of_another_environment_do_not_fit(pendulum: Any, tmp_path: Path) -> None:
    pendulum.save(tmp_path / "v.pkl")
    statistics = read_vec_normalize(tmp_path / "v.pkl")
    assert statistics is not None
    with pytest.raises(UserError, match="they are of 3 numbers, and CartPole-v1 gives 4 numbers"):
        statistics.weights(describe("CartPole-v1"))
    with pytest.raises(UserError, match="they are of 3 numbers, and FrozenLake-v1 gives"):
        statistics.weights(describe("FrozenLake-v1"))
    tiny = dataclasses.replace(statistics, std=np.full(3, 1e-60))
    with pytest.raises(UserError, match="as float32 a mean or a standard deviation is infinite, or the latter zero"):
        tiny.weights(PENDULUM)


def test_another_clip_is_refused_where_it_matters(pendulum: Any, tmp_path: Path) -> None:
    pendulum.save(tmp_path / "v.pkl")
    statistics = read_vec_normalize(tmp_path / "v.pkl")
    assert statistics is not None
    wide = dataclasses.replace(statistics, mean=np.zeros(3), std=np.ones(3))
    dataclasses.replace(wide, clip=9.0).weights(PENDULUM)  # no observation is beyond ±8
    dataclasses.replace(wide, clip=1e9).weights(PENDULUM)
    with pytest.raises(UserError, match=r"they clip at ±5 standard deviations \(clip_obs\); ours are clipped at ±10"):
        dataclasses.replace(wide, clip=5.0).weights(PENDULUM)
    with pytest.raises(UserError, match="they clip at ±100 standard deviations"):
        dataclasses.replace(wide, std=np.full(3, 0.1), clip=100.0).weights(PENDULUM)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("ppo/Pendulum-v1.zip", "ppo/Pendulum-v1.vecnormalize.pkl"),
        ("ppo/Pendulum-v1_1/Pendulum-v1.zip", "ppo/Pendulum-v1_1/Pendulum-v1/vecnormalize.pkl"),
        ("ppo/Pendulum-v1_1/best_model.zip", "ppo/Pendulum-v1_1/Pendulum-v1/vecnormalize.pkl"),
        ("ppo-Pendulum-v1.zip", "vec_normalize.pkl"),
        ("ppo-Pendulum-v1.zip", "vecnormalize.pkl"),
    ],
)
def test_statistics_are_found_where_the_zoo_and_the_hub_keep_them(file: str, place: str, tmp_path: Path) -> None:
    assert statistics_beside(tmp_path / file, "Pendulum-v1") is None
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    assert statistics_beside(tmp_path / file, "Pendulum-v1") == tmp_path / place
