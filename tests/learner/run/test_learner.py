"""One update: which steps it makes, of which gradients and rewards, and what stops it."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.policy import Policy
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.networks.actor_critic import Outputs
from learner.run.learner import check_prepared, find_device
from tests.learner import make_batch, make_spec
from tests.learner.learners import ONE_SGD_STEP, Metrics, OwnLoss, Steps, fly_and_update, make_learner, weights

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

REINFORCE = {"kind": PolicyGradient, "advantage": "reward_to_go", "normalize_advantage": False}


def test_one_step_of_gradient_descent() -> None:
    """With SGD, a learning rate of 1 and no clipping the weights move by the textbook's gradient, and by no more."""
    learner = make_learner(make_spec(), **REINFORCE, **ONE_SGD_STEP, seed=1)
    twin = make_learner(make_spec(), **REINFORCE, **ONE_SGD_STEP, seed=1).network
    batch = make_batch(learner.policy(), [3], rewards=[1, 2, 3])
    _, metrics = learner.update(batch)
    gamma = PolicyGradient().gamma
    q = torch.tensor([1 + 2 * gamma + 3 * gamma**2, 2 + 3 * gamma, 3])
    policy = torch.distributions.Categorical(logits=twin.actor(torch.from_numpy(batch.observations)))
    gradients = torch.autograd.grad(
        -(q * policy.log_prob(torch.from_numpy(batch.actions))).mean(), list(twin.parameters())
    )
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert metrics["train/grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for after, before, gradient in zip(learner.network.parameters(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(after.data, before.data - gradient, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_max_grad_norm() -> None:
    changes, norms = {}, {}
    for limit in (math.inf, 1e6, 0.5):
        update = {**ONE_SGD_STEP, "max_grad_norm": limit}
        learner = make_learner(make_spec(), **{**REINFORCE, "reward_scale": 100.0}, **update)
        before = weights(learner)
        metrics = fly_and_update(learner, 1)
        changes[limit], norms[limit] = (weights(learner) - before).astype(np.float64), metrics["train/grad_norm"]
    assert norms[0.5] == norms[math.inf] > 5  # what is logged is the length before clipping
    assert np.linalg.norm(changes[math.inf]) == pytest.approx(norms[math.inf], rel=1e-4)
    np.testing.assert_allclose(changes[1e6], changes[math.inf], atol=1e-6)  # a limit that is not reached
    assert np.linalg.norm(changes[0.5]) == pytest.approx(0.5, rel=1e-4)
    np.testing.assert_allclose(changes[0.5] * norms[0.5] / 0.5, changes[math.inf], atol=1e-3)  # the same direction


def test_a_minibatch_is_a_step() -> None:
    learner = make_learner(make_spec(), n_epochs=3, batch_size=10)
    metrics = fly_and_update(learner, 1)  # 38 steps
    assert (metrics["train/gradient_steps"], metrics["train/epochs"]) == (12, 3)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("compile_", [True, False])
def test_a_large_optimizer_eps_makes_steps_of_small_gradients_small(optimizer: Any, compile_: bool) -> None:
    changes = {}
    for eps in (1e-8, 1e8):
        config = {"optimizer": optimizer, "optimizer_eps": eps, "compile": compile_}
        learner = make_learner(make_spec(), **config)
        before = weights(learner)
        fly_and_update(learner, 1)
        changes[eps] = np.abs(weights(learner) - before).max()
    assert changes[1e8] < 1e-3 < changes[1e-8]


def test_linear_schedule() -> None:
    def change(schedule: Literal["constant", "linear"], progress: float) -> Array:
        update = {**ONE_SGD_STEP, "schedule": schedule, "learning_rate": 0.5}
        learner = make_learner(make_spec(), **REINFORCE, **update)
        before = weights(learner)
        _, metrics = learner.update(make_batch(learner.policy(), [20]), progress_remaining=1 - progress)
        rate = 0.5 * (1 - progress) if schedule == "linear" else 0.5
        assert metrics["train/learning_rate"] == rate
        return weights(learner) - before

    np.testing.assert_array_equal(change("linear", 0.0), change("constant", 0.75))
    np.testing.assert_allclose(change("linear", 0.75), change("linear", 0.0) / 4, atol=1e-6)
    assert not change("linear", 1.0).any()


@pytest.mark.parametrize("name", [None, "plain"])
@pytest.mark.parametrize("compile_", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_target_kl_judges_the_whole_batch_after_each_epoch(seed: int, compile_: bool, name: str | None) -> None:
    """Whatever the minibatches, and whatever the loss logs."""
    spec = make_spec(hidden_sizes=(8,))
    loss = None if name is None else policy_gradient_alone

    def update(n_epochs: int, target_kl: float | None) -> tuple[EpisodeBatch, Policy, float]:
        config = {
            "n_epochs": n_epochs,
            "batch_size": 8,
            "learning_rate": 0.03,
            "target_kl": target_kl,
            "compile": compile_,
        }
        learner = make_learner(spec, **config, seed=seed, kind=OwnLoss, function=loss)
        batch = make_batch(learner.policy(), [20, 11, 7], seed=seed)
        policy, metrics = learner.update(batch)
        return batch, policy, metrics["train/epochs"]

    def divergence(n_epochs: int) -> float:
        batch, policy, _ = update(n_epochs, None)
        parameters = policy.forward(batch.observations)
        log_ratios = policy.distribution.log_prob(parameters, batch.actions) - batch.notes["log_prob"]
        return float((np.exp(log_ratios) - 1 - log_ratios).mean())

    first, second = divergence(1), divergence(2)
    assert second > first > 1e-4
    for target, epochs in ((0.99 * first, 1), (1.01 * first, 2), (0.99 * second, 2), (1.01 * second, 3)):
        assert update(3, target / 1.5)[2] == epochs


def policy_gradient_alone(outputs: Outputs, batch: Steps, config: PPO) -> tuple[Tensor, Metrics]:
    return -(batch.advantages * outputs.log_probs).mean(), {}


def test_rewards_are_clipped_before_they_are_scaled() -> None:
    def run(rewards: Array, **options: float) -> Array:
        learner = make_learner(make_spec(), normalize_advantage=False, **options)
        learner.update(make_batch(learner.policy(), [20], rewards=rewards.tolist()))
        return weights(learner)

    rewards = 3 * np.random.default_rng(0).standard_normal(20)
    clipped = np.clip(rewards, -0.5, 0.5)
    np.testing.assert_array_equal(run(rewards, reward_clip=0.5, reward_scale=2.0), run(2 * clipped))
    assert (run(clipped) != run(rewards)).any()


def test_reward_scale_multiplies_the_rewards() -> None:
    def run(reward_scale: float, rewards: Array) -> Array:
        config = {"reward_scale": reward_scale, "normalize_advantage": False}
        learner = make_learner(make_spec(), **config)
        learner.update(make_batch(learner.policy(), [20], rewards=rewards.tolist()))
        return weights(learner)

    rewards = np.random.default_rng(0).standard_normal(20)
    np.testing.assert_array_equal(run(0.25, rewards), run(1.0, 0.25 * rewards.astype(np.float32)))
    assert (run(0.25, rewards) != run(1.0, rewards)).any()


@pytest.mark.parametrize("normalize_entropy", [False, True])
@pytest.mark.parametrize(
    ("actions", "entropy", "unit"),
    [("categorical", math.log(3), math.log(3)), ("gaussian", 1 + math.log(2 * math.pi), 1.0)],
)
def test_entropy_of_a_new_policy(
    actions: Literal["categorical", "gaussian"], entropy: float, unit: float, normalize_entropy: bool
) -> None:
    """It is near uniform, or standard normal in two components; the uniform one is the unit where there is one."""
    config = {"normalize_entropy": normalize_entropy}
    learner = make_learner(make_spec(actions), **config, n_epochs=1, batch_size=None)
    expected = entropy / unit if normalize_entropy else entropy
    assert fly_and_update(learner, 1)["train/entropy_loss"] == pytest.approx(-expected, abs=1e-3)


def square_root_loss(outputs: Outputs, batch: Steps, config: PPO) -> tuple[Tensor, Metrics]:
    """NaN once a return is negative."""
    policy_loss, root = -outputs.log_probs.mean(), batch.returns.sqrt().mean()
    return policy_loss + root, {"policy_gradient_loss": policy_loss, "root": root}


@pytest.mark.parametrize("compile_it", [True, False])
def test_a_term_that_is_no_number_stops_the_update_that_found_it(compile_it: bool) -> None:
    options = {**REINFORCE, "kind": OwnLoss, "function": square_root_loss, "compile": compile_it}
    learner = make_learner(make_spec(), **options)
    policy = learner.policy()
    for _ in range(2):
        learner.update(make_batch(policy, [20], rewards=[1] * 20))
    with pytest.raises(NonFiniteError, match=r"^update 3: .*train/root.* became NaN or infinite$") as error:
        learner.update(make_batch(policy, [20], rewards=[-1] * 20))
    assert "policy_gradient_loss" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_weight_that_overflows_stops_the_update() -> None:
    update = {**ONE_SGD_STEP, "learning_rate": 1e38}
    learner = make_learner(make_spec(), **{**REINFORCE, "reward_scale": 1e4}, **update)
    with pytest.raises(NonFiniteError, match=r"^update 1: a weight became NaN or infinite"):
        fly_and_update(learner, 1)


def test_a_learning_rate_far_too_high_stops_the_run() -> None:
    update = {"optimizer": "sgd", "learning_rate": 1e30, "max_grad_norm": math.inf}
    learner = make_learner(make_spec(), **update)
    with pytest.raises(NonFiniteError, match=r"^update \d: .* became NaN or infinite"):
        fly_and_update(learner, 5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(UserError, match="device 'cuda' is not available to the learner; use 'cpu' or 'auto'"):
        make_learner(make_spec(), device="cuda")
    assert find_device("auto") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_where_there_is_one() -> None:
    learner = make_learner(make_spec(), device="auto")
    assert learner.device.type == "cuda"
    fly_and_update(learner, 2)
    elsewhere = make_learner(make_spec())
    elsewhere.load_state(learner.state())  # a run can move from a GPU to a CPU
    np.testing.assert_array_equal(weights(elsewhere), weights(learner))


@pytest.mark.parametrize(
    ("prepared", "said"),
    [
        (None, "prepare must answer a dict of columns and one of numbers"),
        (({"a": 3}, {}), "prepare gives a column a that is no tensor of steps"),
        (({}, {}), r"prepare must give columns of one length, not \{\}"),
        (
            ({"a": torch.ones(2), "b": torch.ones(3)}, {}),
            r"prepare must give columns of one length, not .*'b': 3",
        ),
        (({"a": torch.ones(2)}, {"x": torch.ones(2)}), "prepare gives x as a Tensor, not a number"),
    ],
)
def test_what_no_algorithm_may_prepare_is_one_line(prepared: object, said: str) -> None:
    with pytest.raises(UserError, match=f"^algorithm 'mine': {said}") as error:
        check_prepared("mine", prepared)
    assert "\n" not in str(error.value)
