"""Policies that explore with gSDE, against Stable-Baselines3's own distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from actors.errors import UserError
from learner.keeping.policies import find_policy
from learner.networks.actor_critic import ActorCritic
from serve.client import PolicyClient
from serve.hub.formats.onnx import export
from serve.import_sb3 import import_sb3, main
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from tests.serve.sb3_files import data_changed, rewrite, saved, weights_changed
from tests.serve.served import PATIENT, running

OPTIONS = {
    "as it comes": {},
    "one σ for all actions of a unit": {"full_std": False},
    "expln": {"use_expln": True, "log_std_init": 0.1},
    "relu": {"activation_fn": torch.nn.ReLU, "net_arch": [16]},
}
ENV = "LunarLanderContinuous-v3"


def observations(count: int = 200) -> Any:
    return np.random.default_rng(0).standard_normal((count, 8), np.float32)


@pytest.mark.parametrize("name", OPTIONS)
def test_means_deviations_and_log_probs_are_stable_baselines3s(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"ppo-{ENV}.zip"
    model = saved(file, "PPO", ENV, use_sde=True, policy_kwargs=OPTIONS[name])
    main([str(file), "--to", str(tmp_path / "run")])
    policy = find_policy(tmp_path / "run")
    assert policy.spec.distribution == "state_dependent_gaussian"
    assert policy.weights["log_std"].shape == (policy.spec.network.hidden_sizes[-1], 2)
    seen = observations()
    actions = np.random.default_rng(1).standard_normal((len(seen), 2), np.float32)
    with torch.no_grad():
        theirs = model.policy.get_distribution(torch.from_numpy(seen))
        mean, std = theirs.distribution.mean.numpy(), theirs.distribution.stddev.numpy()
        log_probs = theirs.log_prob(torch.from_numpy(actions)).numpy()
        flown, _ = model.predict(seen, deterministic=True)
    step = policy.step(seen, {})
    np.testing.assert_allclose(step.shown["mean"], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(step.shown["std"], std, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(policy.distribution.log_prob(step.parameters, actions), log_probs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(policy.act(seen), flown, atol=1e-5)
    assert np.ptp(std, axis=0).min() > 0.1, "states differ in it"


@pytest.fixture(scope="module")
def gsde(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gsde") / f"a2c-{ENV}.zip"
    saved(path, "A2C", ENV, use_sde=True)
    return path


def test_onnx_and_act_show_a_deviation_for_each_observation(gsde: Path, tmp_path: Path) -> None:
    policy = import_sb3(gsde)
    policy.save(tmp_path / "policy")
    seen = observations(20)
    shown = policy.step(seen, {}).shown
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    action, mean, std = session.run(["action", "mean", "std"], {"observation": seen})
    service = Service(Policies({"a2c": tmp_path}), HttpConfig(access_log=False))
    with running(service) as address, PolicyClient(address, **PATIENT) as client:
        many = client.act_many(seen)
        one = client.act(seen[3])
    for actions, means, stds in ((action, mean, std), (many.action, many.mean, many.std)):
        np.testing.assert_allclose(actions, policy.act(seen), atol=1e-5)
        np.testing.assert_allclose(means, shown["mean"], atol=1e-5)
        np.testing.assert_allclose(stds, shown["std"], rtol=1e-5)
    np.testing.assert_allclose(one.std, shown["std"][3], rtol=1e-5)


def test_it_is_learned_with_as_it_flies(gsde: Path) -> None:
    policy = import_sb3(gsde)
    network = ActorCritic(policy.spec, has_critic=False)
    network.load_policy_weights(policy.weights)
    seen = observations(20)
    with torch.no_grad():
        parameters = network.parameters_of(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(policy.forward(seen), parameters, rtol=1e-4, atol=1e-5)


def test_noise_that_does_not_fit_the_network_is_damage(gsde: Path, tmp_path: Path) -> None:
    def shorter(state: dict[str, Any]) -> dict[str, Any]:
        return state | {"log_std": state["log_std"][:-1]}

    file = rewrite(gsde, tmp_path / gsde.name, policy=weights_changed(shorter))
    with pytest.raises(UserError, match=r"its log_std is \(63, 2\), \(64, 2\) is what gSDE needs"):
        import_sb3(file)
    file = rewrite(gsde, tmp_path / gsde.name, data=data_changed(use_sde=1))
    with pytest.raises(UserError, match="its use_sde must be true or false, not '1'"):
        import_sb3(file)
    file = rewrite(gsde, tmp_path / gsde.name, data=data_changed(use_sde=False))
    with pytest.raises(UserError, match=r"log_std is \(64, 2\), \(2,\) is needed"):
        import_sb3(file)
