"""Policies of DQN, QR-DQN, SAC, TD3 and DDPG, against Stable-Baselines3's own actions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from actors.errors import UserError
from learner.keeping.policies import find_policy
from serve.import_sb3 import import_sb3, main
from tests.serve.sb3_files import data_changed, rewrite, saved, weights_changed
from tests.serve.test_import_normalized import normalised

CASES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "DQN": ("DQN", "LunarLander-v3", {}, "DQN of 8 × 64 × 64 × 4 units, relu, exploring with ε = 0.25"),
    "DQN, tanh": (
        "DQN",
        "CartPole-v1",
        {"policy_kwargs": {"net_arch": [16], "activation_fn": torch.nn.Tanh}},
        "DQN of 4 × 16 × 2 units, tanh, exploring with ε = 0.25",
    ),
    "SAC": ("SAC", "LunarLanderContinuous-v3", {}, "SAC of 8 × 256 × 256 × 4 units, relu"),
    "SAC, linear": ("SAC", "Pendulum-v1", {"policy_kwargs": {"net_arch": []}}, "SAC of 3 × 2 units, relu"),
    "SAC, gSDE": (
        "SAC",
        "LunarLanderContinuous-v3",
        {"use_sde": True, "policy_kwargs": {"net_arch": [32], "clip_mean": 0.5}},
        "SAC of 8 × 32 × 4 × 4 units, relu; what it explored with is left behind",
    ),
    "SAC, gSDE, tanh": (
        "SAC",
        "Pendulum-v1",
        {"use_sde": True, "policy_kwargs": {"clip_mean": 0.0, "activation_fn": torch.nn.Tanh}},
        "SAC of 3 × 256 × 256 × 2 units, tanh; what it explored with is left behind",
    ),
    "TD3": ("TD3", "LunarLanderContinuous-v3", {}, "TD3 of 8 × 400 × 300 × 4 units, relu; what it explored with"),
    "DDPG": ("DDPG", "Pendulum-v1", {}, "DDPG of 3 × 400 × 300 × 2 units, relu; what it explored with"),
}
"""An algorithm, an environment, options, and what is told of it."""


@pytest.mark.parametrize("name", CASES)
def test_it_acts_as_stable_baselines3_does(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    algorithm, env_id, options, told = CASES[name]
    file = tmp_path / f"{algorithm.lower()}-{env_id}.zip"
    model = saved(tmp_path / "model.zip", algorithm, env_id, buffer_size=100, **options)
    rewrite(tmp_path / "model.zip", file, data=data_changed(**({"exploration_rate": 0.25} if "DQN" in name else {})))
    main([str(file), "--to", str(tmp_path / "run")])
    assert told in " ".join(capsys.readouterr().out.split())
    policy = find_policy(tmp_path / "run")
    space = gymnasium.make(env_id).observation_space
    seen = np.random.default_rng(0).standard_normal((1000, *space.shape), np.float32)
    theirs, _ = model.predict(seen, deterministic=True)
    assert len(np.unique(theirs)) > 1
    noise = policy.distribution.noise(np.random.default_rng(1), (len(seen),))
    sampled = policy.step(seen, {}, noise)
    if algorithm == "DQN":
        np.testing.assert_array_equal(policy.act(seen), theirs)
        with torch.no_grad():
            np.testing.assert_allclose(
                policy.forward(seen), model.q_net(torch.from_numpy(seen)).numpy(), rtol=1e-4, atol=1e-4
            )
        assert policy.weights["epsilon"] == [np.float32(0.25)]
    else:
        np.testing.assert_allclose(policy.act(seen), theirs, atol=1e-4)
        assert policy.spec.scale_actions
    if "left behind" in told or algorithm in ("TD3", "DDPG"):
        np.testing.assert_allclose(sampled.actions, theirs, atol=1e-4)
    elif algorithm == "SAC":
        with torch.no_grad():
            means, log_stds, _ = model.actor.get_action_dist_params(torch.from_numpy(seen))
            expected = torch.tanh(means + log_stds.exp() * torch.from_numpy(noise)).numpy()
        np.testing.assert_allclose(sampled.sampled, expected, atol=1e-4)


@pytest.fixture(scope="module")
def dqn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "dqn-CartPole-v1.zip"
    saved(path, "DQN", "CartPole-v1", buffer_size=100)
    return path


@pytest.fixture(scope="module")
def sac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "sac-Pendulum-v1.zip"
    saved(path, "SAC", "Pendulum-v1", buffer_size=100, use_sde=True, policy_kwargs={"activation_fn": torch.nn.ReLU})
    return path


def quantiles(count: int, **data: Any) -> dict[str, Callable[[bytes], bytes]]:
    """What makes a file of QR-DQN, which has more outputs, of one of DQN for a CartPole."""

    def outputs(state: dict[str, Any]) -> dict[str, Any]:
        state = {name.replace("q_net", "quantile_net"): value for name, value in state.items()}
        generator = torch.Generator().manual_seed(0)
        for net in ("quantile_net", "quantile_net_target"):
            state[f"{net}.quantile_net.4.weight"] = torch.randn(count * 2, 64, generator=generator)
            state[f"{net}.quantile_net.4.bias"] = torch.randn(count * 2, generator=generator)
        return state

    policy_class = {":type:": "<class 'abc.ABCMeta'>", "__module__": "sb3_contrib.qrdqn.policies"}
    data = {"policy_class": policy_class, "n_quantiles": count, **data}
    return {"data": data_changed(**data), "policy": weights_changed(outputs)}


def test_q_values_are_the_means_of_quantiles(dqn: Path, tmp_path: Path) -> None:
    file = rewrite(dqn, tmp_path / "qrdqn-CartPole-v1.zip", **quantiles(25, exploration_rate=0.07))
    policy = import_sb3(file)
    assert (policy.spec.trained["algorithm"], policy.spec.distribution) == ("QR-DQN", "epsilon_greedy")
    seen = np.random.default_rng(0).standard_normal((200, 4), np.float32)
    bare = import_sb3(dqn).weights
    generator = torch.Generator().manual_seed(0)
    w, b = torch.randn(50, 64, generator=generator), torch.randn(50, generator=generator)
    hidden = np.maximum(np.maximum(seen @ bare["w0"] + bare["b0"], 0) @ bare["w1"] + bare["b1"], 0)
    expected = (torch.from_numpy(hidden) @ w.T + b).view(-1, 25, 2).mean(dim=1).numpy()
    np.testing.assert_allclose(policy.forward(seen), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(policy.act(seen), expected.argmax(axis=1))
    assert policy.weights["epsilon"] == [np.float32(0.07)]


def test_statistics_are_flown_with(tmp_path: Path) -> None:
    file, env = tmp_path / "td3-Pendulum-v1.zip", normalised(epsilon=0.01)
    model = saved(file, "TD3", "Pendulum-v1", buffer_size=100)
    env.save(tmp_path / "vec_normalize.pkl")
    policy = import_sb3(file)
    seen = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32) * np.array([1, 1, 8], np.float32)
    theirs, _ = model.predict(env.normalize_obs(seen), deterministic=True)
    np.testing.assert_allclose(policy.act(seen), theirs, atol=1e-4)
    assert np.ptp(theirs) > 0.1


def test_the_last_epsilon_is_taken_where_no_other_is(dqn: Path, tmp_path: Path) -> None:
    changed = data_changed(exploration_rate=None, exploration_final_eps=0.1)
    assert import_sb3(rewrite(dqn, tmp_path / dqn.name, data=changed)).weights["epsilon"] == [np.float32(0.1)]


@pytest.mark.parametrize("share", [1.5, -0.1, True, "0.1", [0.1]])
def test_an_epsilon_that_is_no_share_is_damage(share: Any, dqn: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exploration_rate must lie from 0 to 1, not be"):
        import_sb3(rewrite(dqn, tmp_path / dqn.name, data=data_changed(exploration_rate=share)))


@pytest.mark.parametrize("count", [0, 3, True, 2.0, "many"])
def test_quantiles_that_are_none_are_damage(count: Any, dqn: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="50 outputs cannot be"):
        import_sb3(rewrite(dqn, tmp_path / dqn.name, **quantiles(25, n_quantiles=count)))


@pytest.mark.parametrize("limit", [-1, True, "wide"])
def test_a_limit_of_means_that_is_none_is_damage(limit: Any, sac: Path, tmp_path: Path) -> None:
    changed = data_changed(policy_kwargs={"clip_mean": limit})
    with pytest.raises(UserError, match="its clip_mean must be positive, not"):
        import_sb3(rewrite(sac, tmp_path / sac.name, data=changed))


def test_what_cannot_be_imported_is_refused_by_name(dqn: Path, sac: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain" / sac.name
    plain.parent.mkdir()
    saved(plain, "SAC", "Pendulum-v1", buffer_size=100)
    pixels = {"q_net.features_extractor.cnn.0.weight": torch.zeros(1)}
    sees = {"actor.sde_features_extractor.0.weight": torch.zeros(1)}
    uneven = {"actor.log_std.weight": torch.zeros(1, 7)}
    norms = {"q_net.q_net.1.running_mean": torch.zeros(64)}
    for source, change, options, said in (
        (dqn, lambda state: state | pixels, {}, "CnnPolicy"),
        (dqn, lambda state: state | norms, {}, "unknown weight 'q_net.q_net.1.running_mean'"),
        (dqn, lambda _: {}, {}, r"q_net.q_net.0 is no layer of a weight and a bias"),
        (dqn, dict, {"env_id": "MountainCar-v0"}, "does not fit MountainCar-v0"),
        (dqn, dict, {"env_id": "Pendulum-v1"}, "does not fit Pendulum-v1: it takes 4 numbers and gives 2 for epsilon"),
        (dqn, lambda state: state | {"q_net.q_net.2.bias": torch.zeros(7)}, {}, "q_net.q_net.2 is no layer"),
        (sac, lambda state: state | sees, {}, "sde_net_arch"),
        (plain, lambda state: state | uneven, {}, r"actor.mu is \(256, 1\), and its actor.log_std \(7, 1\)"),
        (sac, dict, {"activation": "tanh"}, "SAC with gSDE and tanh; its means are clipped"),
        (sac, dict, {"env_id": "BipedalWalker-v3"}, "does not fit BipedalWalker-v3: it takes 3 numbers and gives 2"),
    ):
        file = rewrite(source, tmp_path / source.name, policy=weights_changed(change))
        with pytest.raises(UserError, match=said) as refused:
            import_sb3(file, **options)
        assert "\n" not in str(refused.value)
