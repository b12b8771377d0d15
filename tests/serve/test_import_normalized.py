"""Policies of normalised observations, with the statistics that Stable-Baselines3 has saved beside them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.errors import UserError
from actors.policy import Policy
from learner.keeping.policies import find_policy
from serve.import_sb3 import import_sb3, main
from tests.serve.sb3_files import saved

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")


def normalised(**kwargs: Any) -> Any:
    """Statistics of some steps of a swing-up."""
    env = vec_env.VecNormalize(vec_env.DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]), **kwargs)
    env.reset()
    for _ in range(50):
        env.step(np.array([env.action_space.sample()]))
    return env


@pytest.mark.parametrize("use_sde", [False, True])
def test_statistics_are_flown_with(use_sde: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Pendulum-v1").mkdir()
    file, env = tmp_path / "Pendulum-v1.zip", normalised(epsilon=0.01)
    model = saved(file, "PPO", "Pendulum-v1", use_sde=use_sde)
    env.save(tmp_path / "Pendulum-v1" / "vecnormalize.pkl")
    main([str(file), "--to", str(tmp_path / "run")])
    assert "observations are normalised as vecnormalize.pkl says" in capsys.readouterr().out
    policy = find_policy(tmp_path / "run")
    seen = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32) * np.array([1, 1, 8], np.float32)
    theirs, _ = model.predict(env.normalize_obs(seen), deterministic=True)
    np.testing.assert_allclose(policy.act(seen), theirs, atol=1e-5)
    assert np.ptp(theirs) > 0.1


def test_statistics_that_are_named_come_before_those_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ppo-Pendulum-v1.zip"
    saved(file, "PPO", "Pendulum-v1")
    (tmp_path / "vec_normalize.pkl").write_bytes(pickle.dumps(len))
    with pytest.raises(UserError, match=r"vec_normalize.pkl holds no statistics .* it names builtins.len"):
        import_sb3(file)
    env = normalised()
    env.save(tmp_path / "mine.pkl")
    policy = import_sb3(file, vec_normalize=tmp_path / "mine.pkl")
    np.testing.assert_allclose(policy.weights["observation_mean"], env.obs_rms.mean, rtol=1e-6)
    assert policy.spec.trained["vec_normalize"] == "mine.pkl"
    main([str(file), "--to", str(tmp_path / "run"), "--vec-normalize", str(tmp_path / "mine.pkl")])
    same = find_policy(tmp_path / "run")
    np.testing.assert_array_equal(same.weights["observation_std"], policy.weights["observation_std"])
    saved(tmp_path / "CartPole-v1.zip", "A2C", "CartPole-v1")
    with pytest.raises(UserError, match=r"mine.pkl do not fit: they are of 3 numbers, and CartPole-v1 gives 4"):
        import_sb3(tmp_path / "CartPole-v1.zip", vec_normalize=tmp_path / "mine.pkl")
    normalised(norm_obs=False).save(tmp_path / "rewards.pkl")
    capsys.readouterr()
    main([str(file), "--to", str(tmp_path / "bare"), "--vec-normalize", str(tmp_path / "rewards.pkl")])
    assert "rewards.pkl is of rewards alone" in capsys.readouterr().out
    assert not Policy.load(tmp_path / "bare" / "policy").spec.network.normalize_observations
