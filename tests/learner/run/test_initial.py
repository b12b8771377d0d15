"""A run that starts from a policy that was trained before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.policy import Policy
from learner.algorithms.dqn import DQN
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.sac import SAC
from learner.networks.config import Critic
from learner.run.initial import Initial, read_initial
from learner.run.trainer import Trainer
from learner.train import main, read_command
from tests.actors.examples import policy_for, random_policy
from tests.learner import make_batch, make_spec
from tests.learner.learners import make_learner
from tests.learner.run.short_runs import cartpole

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings


@pytest.mark.parametrize("distribution", ["categorical", "gaussian"])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_learner_acts_at_first_as_the_policy_did(distribution: str, normalised: bool) -> None:
    spec = make_spec(distribution, normalize_observations=normalised)
    policy = random_policy(spec)
    learner = make_learner(spec, initial=Initial("there", policy))
    for name, array in learner.policy().weights.items():
        np.testing.assert_allclose(array, policy.weights[name], rtol=1e-6, atol=1e-8, err_msg=name)
    learner.update(make_batch(learner.policy(), [20, 11]))
    assert (learner.policy().weights["w0"] != policy.weights["w0"]).any()
    if normalised:  # one batch moves them little
        mean = learner.policy().weights["observation_mean"]
        np.testing.assert_allclose(mean, policy.weights["observation_mean"], atol=0.01)


@pytest.mark.parametrize("algorithm", [PPO, DQN, SAC])
def test_values_of_rewards_on_another_scale_are_taken_over_on_this_one(algorithm: Any) -> None:
    spec = make_spec({PPO: "categorical", DQN: "epsilon_greedy", SAC: "squashed_gaussian"}[algorithm])
    first = make_learner(spec, algorithm(reward_scale=0.1))
    critic = first.state()["parameters"][spec.num_learned :]
    initial = Initial("there", first.policy(), critic, reward_scale=0.1)
    second = make_learner(spec, algorithm(reward_scale=0.5), initial=initial)
    observations, actions = torch.randn(5, 4), torch.rand(5, 2)
    values = [
        {
            PPO: lambda network=learner.network: network.value(observations),
            DQN: lambda network=learner.network: network.q_values(observations, of_target=True),
            SAC: lambda network=learner.network: network.target(observations, actions),
        }[algorithm]()
        for learner in (first, second)
    ]
    torch.testing.assert_close(values[1], 5 * values[0])
    assert values[0].abs().min() > 0
    if algorithm is not DQN:
        np.testing.assert_array_equal(second.policy().weights["w1"], first.policy().weights["w1"])


@pytest.mark.parametrize(
    ("algorithm", "scale"),
    [
        ({"reward_scale": 0.25}, 0.25),
        ({"reward_scale": 0}, None),
        ({"reward_scale": "1"}, None),
        ([], None),
        ({}, None),
    ],
)
def test_a_packages_scale_of_rewards_is_taken_if_it_is_one(tmp_path: Path, algorithm: Any, scale: float | None) -> None:
    random_policy(make_spec()).save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": algorithm}))
    assert read_initial(str(tmp_path)).reward_scale == scale


@pytest.mark.usefixtures("kept_processes")
def test_a_runs_critic_and_statistics_are_taken_over_where_they_fit(tmp_path: Path) -> None:
    config = cartpole(
        fleet={"actors": 1}, network={"normalize_observations": True}, stop={"total_timesteps": 4_000}, seed=3
    )
    Trainer(config, tmp_path / "run").run()
    initial = read_initial(str(tmp_path / "run"))
    assert initial.critic is not None
    assert initial.statistics is not None
    assert initial.reward_scale == config.algorithm.reward_scale
    spec = initial.policy.spec
    learner = make_learner(spec, config.algorithm, initial=initial)
    assert learner.network.critic is not None
    mine = torch.cat([weight.flatten() for weight in learner.network.critic.parameters()])
    np.testing.assert_array_equal(mine.detach().numpy(), initial.critic)
    np.testing.assert_array_equal(learner.state()["normalizer.count"], initial.statistics["count"])
    other = make_learner(spec, config.algorithm, critic=Critic((5,)), initial=initial)
    assert other.network.critic is not None
    without = {"kind": PolicyGradient, "advantage": "baseline"}
    assert make_learner(spec, **without, initial=initial).network.critic is None


@pytest.mark.usefixtures("kept_processes")
def test_a_run_starts_where_another_ended_and_says_so(tmp_path: Path) -> None:
    config = cartpole(stop={"target_return": 400.0, "window": 20, "total_timesteps": 400_000})
    first = Trainer(config, tmp_path / "a").run()
    assert first.target_reached
    options = ["--env", "CartPole-v0", "--actors", "1", "--n-envs", "8", "--n-steps", "32", "--learning-rate", "1e-5"]
    run = tmp_path / "b"
    more = ["--total-timesteps", "6000", "--no-video", "--evaluate-episodes", "0", "--run-dir", str(run)]
    main([*options, *more, "--init-from", str(tmp_path / "a")])
    result, policy = json.loads((run / "result.json").read_text()), Policy.load(run / "policy")
    assert result["mean_return"] > 100, "random weights have 20"
    assert policy.spec.env_id == "CartPole-v0"
    assert policy.spec.network == first.policy.spec.network
    origin = {"origin": str(tmp_path / "a"), "env_id": "CartPole-v1", "version": first.policy.spec.version}
    assert policy.spec.trained["init_from"] == origin


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--init-from", "{policy}", "--env", "LunarLander-v3"],
            "its observation is 4 numbers, LunarLander-v3 has 8 numbers",
        ),
        (["--init-from", "{policy}", "--env", "CartPole-v1", "--hidden-sizes", "9"], "has its network"),
        (["--init-from", "nowhere"], "no policy in nowhere"),
        (["--init-from", ""], "an empty name was given"),
        (["--init-from", "{policy}", "--resume", "run"], "leave --init-from out"),
    ],
)
def test_what_does_not_fit_is_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy_for("CartPole-v1").save(tmp_path / "policy")
    with pytest.raises(SystemExit) as caught:
        main([*(word.format(policy=tmp_path / "policy") for word in options), "--run-dir", str(tmp_path / "run")])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()


def test_the_command_takes_over_the_network_and_nothing_else(tmp_path: Path) -> None:
    policy_for("CartPole-v1", hidden_sizes=(7, 5), activation="elu", normalize_observations=True).save(tmp_path)
    config = read_command(["--env", "CartPole-v1", "--init-from", str(tmp_path), "--critic-sizes", "3"]).options
    network: dict[str, Any] = {
        "hidden_sizes": (7, 5),
        "activation": "elu",
        "normalize_observations": True,
        "layer_norm": False,
        "network": "mlp",
        "share_trunk": None,
        "memory": "none",
        "memory_size": 64,
        "memory_layers": 2,
        "memory_heads": 4,
        "memory_window": 30,
    }
    assert dataclasses.asdict(config.network) == {**network, "critic_sizes": (3,)}
    plain = read_command(["--env", "CartPole-v1"]).options
    assert dataclasses.replace(config, network=plain.network) == plain
