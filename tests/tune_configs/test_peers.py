"""Peers without Ray: their settings, what their networks are as policies of ours, and what they refuse to fly."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from actors.discrete import EpsilonGreedy
from actors.environments import describe
from actors.episode import Array
from actors.errors import UserError
from actors.making import make_gymnasium
from tune_configs import recipe
from tune_configs.peers import rllib, sb3
from tune_configs.peers.registry import PEERS, require_peer

needs_sb3 = pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs the peers extra")
CART, PENDULUM = "CartPole-v1", "Pendulum-v1"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a trial has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def envs(env_id: str) -> Any:
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env(lambda: make_gymnasium(env_id), n_envs=1)


def observations(env_id: str) -> Array:
    """[64, inputs] float32."""
    return describe(env_id).observation.sample(np.random.default_rng(0), 64)


@needs_sb3
def test_sb3s_dqn_acts_as_the_policy_that_is_made_of_it() -> None:
    model = sb3.dqn_model(envs(CART), 0, 1000)
    model.learn(60)
    policy, seen = sb3.dqn_policy(model, CART), observations(CART)
    assert policy.spec.network.hidden_sizes == recipe.DQN_HIDDEN_SIZES
    np.testing.assert_array_equal(policy.act(seen), model.predict(seen, deterministic=True)[0])
    with torch.no_grad():
        values = model.q_net(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(policy.forward(seen), values, rtol=1e-4, atol=1e-5)
    assert isinstance(policy.distribution, EpsilonGreedy)
    assert policy.distribution.epsilon == pytest.approx(model.exploration_rate)


@needs_sb3
def test_sb3s_dqn_learns_once_a_step_and_explores_over_its_share_of_the_budget() -> None:
    """Of 1,000 steps 12%, whatever is flown in one call: after 60 half of the way from 1 to 0.1."""
    model = sb3.dqn_model(envs(CART), 0, 1000)
    model.learn(60)
    assert model.logger.name_to_value["train/n_updates"] == 60
    assert model.exploration_rate == pytest.approx(0.55)
    model.learn(28, reset_num_timesteps=False)
    assert model.exploration_rate == pytest.approx(1 - 0.9 * 88 / 120)
    model.learn(60, reset_num_timesteps=False)
    assert model.exploration_rate == pytest.approx(0.1)


@needs_sb3
def test_sb3s_sac_acts_as_the_policy_that_is_made_of_it() -> None:
    """Its means and log σ are two layers, ours one; Pendulum's torque goes from -2 to 2."""
    model = sb3.sac_model(envs(PENDULUM), 0, lambda: 1.0)
    model.learning_starts = 8
    model.learn(16)
    policy, seen = sb3.sac_policy(model, PENDULUM), observations(PENDULUM)
    assert policy.spec.network.hidden_sizes == recipe.SAC_HIDDEN_SIZES
    actions = model.predict(seen, deterministic=True)[0]
    assert np.ptp(actions) > 0.01
    np.testing.assert_allclose(policy.act(seen), actions, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        means, log_stds, _ = model.actor.get_action_dist_params(torch.from_numpy(seen))
    np.testing.assert_allclose(policy.forward(seen), torch.cat([means, log_stds], 1), rtol=1e-4, atol=1e-5)


@needs_sb3
def test_sb3s_sac_learns_more_slowly_towards_the_end() -> None:
    left = 1.0
    model = sb3.sac_model(envs(PENDULUM), 0, lambda: left)
    model.learning_starts = 2
    for left in (1.0, 0.25):
        model.learn(4, reset_num_timesteps=False)
        rates = [group["lr"] for group in model.actor.optimizer.param_groups]
        assert rates == [pytest.approx(left * 7.3e-4)]
    assert model.logger.name_to_value["train/n_updates"] > 2


def rllibs(config: Any, env_id: str) -> Any:
    """An RLlib algorithm as far as a policy is made of it: its module, without the processes around it."""
    module = config.get_rl_module_spec(env=make_gymnasium(env_id)).build()
    weights = {"default_policy": module.get_state()}
    return SimpleNamespace(
        env_runner=SimpleNamespace(module=module), learner_group=SimpleNamespace(get_weights=lambda: weights)
    )


def test_rllibs_dqn_acts_as_the_policy_that_is_made_of_it() -> None:
    algorithm = rllibs(rllib.dqn_config(CART, 0, 1000), CART)
    algorithm.env_runner.module.epsilon_schedule.update(60)
    policy, seen = rllib.dqn_policy(algorithm, CART), observations(CART)
    with torch.no_grad():
        values = algorithm.env_runner.module.compute_q_values({"obs": torch.from_numpy(seen)})["qf_preds"]
    assert policy.spec.network.hidden_sizes == recipe.DQN_HIDDEN_SIZES
    np.testing.assert_allclose(policy.forward(seen), values, rtol=1e-4, atol=1e-5)
    assert isinstance(policy.distribution, EpsilonGreedy)
    assert policy.distribution.epsilon == pytest.approx(0.55), "as Stable-Baselines3's, see above"


def test_rllibs_ppo_acts_as_the_policy_that_is_made_of_it() -> None:
    algorithm = rllibs(rllib.ppo_config(CART, 0), CART)
    policy, seen = rllib.ppo_policy(algorithm, CART), observations(CART)
    with torch.no_grad():
        logits = algorithm.env_runner.module.forward_inference({"obs": torch.from_numpy(seen)})["action_dist_inputs"]
    np.testing.assert_allclose(policy.forward(seen), logits, rtol=1e-4, atol=1e-5)


def test_rllibs_dqn_learns_once_a_step() -> None:
    """RLlib works out how often it learns from sizes of batches and numbers of runners."""
    from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights

    config = rllib.dqn_config(CART, 0, 1000)
    fragments, batches = calculate_rr_weights(config)
    assert batches == fragments * config.get_rollout_fragment_length() == recipe.DQN["train_freq"]


@pytest.mark.parametrize(
    ("peer", "env_id", "said"),
    [
        *((peer, PENDULUM, f"peer '{peer}' learns only discrete") for peer in ("rllib", "sb3", "rllib-dqn", "sb3-dqn")),
        ("sb3-sac", CART, "peer 'sb3-sac' learns only continuous actions between bounds, and those of CartPole-v1 are"),
        (
            "sb3-sac",
            "FrozenLake-v1",
            "peers see only vectors of numbers, and observations of FrozenLake-v1 are a whole",
        ),
        ("sb3-dqn", "Taxi-v3", "peers see only vectors of numbers, and observations of Taxi-v3 are a whole number"),
    ],
)
@needs_sb3
def test_a_peer_that_cannot_fly_an_environment_is_refused(peer: str, env_id: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        require_peer(peer, describe(env_id))
    assert str(refused.value).startswith(said)


@needs_sb3
def test_a_peer_is_let_fly_what_it_can() -> None:
    for peer in PEERS:
        require_peer(peer, describe(PENDULUM if peer == "sb3-sac" else CART))


def test_a_peer_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"needs stable_baselines3, which is not installed: pip install"):
        require_peer("sb3-sac", describe(PENDULUM))
