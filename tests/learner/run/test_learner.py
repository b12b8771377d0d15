"""The update: what it changes, what it repeats, what it refuses, and that it learns."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.environments import describe
from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.evaluation import fly_episodes
from actors.layers import ACTIVATIONS
from actors.policy import Policy
from actors.rollout import Rollout
from actors.spaces import Box, Discrete
from actors.trees import leaves
from actors.vectors import make_environments
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.returns import Trajectories, vtrace
from learner.networks.actor_critic import Outputs
from learner.optimisation.config import OPTIMIZERS
from learner.run.learner import Learner, check_prepared, find_device
from tests.learner import make_batch, make_spec
from tests.learner.learners import Metrics, OwnLoss, Steps, make_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

ONE_SGD_STEP = {"n_epochs": 1, "batch_size": None, "optimizer": "sgd", "learning_rate": 1.0, "max_grad_norm": math.inf}
ONE_LOOK = {"n_epochs": 1, "batch_size": None, "learning_rate": 0.05}
REINFORCE = {"kind": PolicyGradient, "advantage": "reward_to_go", "normalize_advantage": False}


def weights(learner: Learner) -> Array:
    return learner.state()["parameters"]


def fly_and_update(learner: Learner, updates: int, first_seed: int = 0) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for i in range(updates):
        _, metrics = learner.update(make_batch(learner.policy(), [20, 11, 7], seed=first_seed + i))
    return metrics


# ---- repeating


@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_a_seed_decides_every_bit(actions: Literal["categorical", "gaussian"]) -> None:
    def run(seed: int, of_torch: int) -> Array:
        torch.manual_seed(of_torch)  # nobody else's random numbers matter
        learner = make_learner(make_spec(actions), ent_coef=0.01, seed=seed)
        fly_and_update(learner, 3)
        return weights(learner)

    np.testing.assert_array_equal(run(seed=1, of_torch=5), run(seed=1, of_torch=6))
    assert (run(seed=1, of_torch=5) != run(seed=2, of_torch=5)).any()


def test_the_seed_draws_the_initial_weights() -> None:
    first, again, other = (make_learner(make_spec(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(weights(first), weights(again))
    assert (weights(first) != weights(other)).any()


def test_the_seed_also_draws_the_minibatches() -> None:
    def run(seed: int) -> Array:
        learner = make_learner(make_spec(), seed=seed)
        state = make_learner(make_spec(), seed=0).state() | {"generator": learner.state()["generator"]}
        learner.load_state(state)
        fly_and_update(learner, 1)
        return weights(learner)

    assert (run(1) != run(2)).any()


def test_making_a_learner_leaves_torchs_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    make_learner(make_spec(), seed=9)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_learner_goes_on_from_its_state_bit_for_bit(optimizer: Any, normalised: bool) -> None:
    spec = make_spec(normalize_observations=normalised)
    update = {"optimizer": optimizer}
    first, second = (make_learner(spec, **update, seed=seed) for seed in (1, 2))
    fly_and_update(first, 2)
    second.load_state(first.state())
    metrics = [fly_and_update(learner, 2, first_seed=10) for learner in (first, second)]
    assert metrics[0] == metrics[1]
    assert metrics[1]["train/n_updates"] == 4
    states = first.state(), second.state()
    assert set(states[0]) == set(states[1])
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array, err_msg=name)
    for name, array in first.policy().weights.items():
        np.testing.assert_array_equal(second.policy().weights[name], array)


def test_a_state_is_a_copy() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    fly_and_update(learner, 1)
    state = learner.state()
    before = {name: array.copy() for name, array in state.items()}
    fly_and_update(learner, 1)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_state_of_other_networks_is_refused() -> None:
    state = make_learner(make_spec()).state()
    other = make_learner(make_spec(hidden_sizes=(9,)))
    with pytest.raises(UserError, match=r"the checkpoint has \d+ parameters, this configuration \d+"):
        other.load_state(state)


def test_versions_count_on_from_the_spec() -> None:
    learner = make_learner(dataclasses.replace(make_spec(), version=41, trained={"preset": "mine"}))
    policy, metrics = learner.update(make_batch(learner.policy(), [20]))
    assert (policy.spec.version, metrics["train/n_updates"]) == (42, 42)
    assert policy.spec.trained == {"preset": "mine"}


def test_several_batches_are_one() -> None:
    first, second = (make_learner(make_spec()) for _ in range(2))
    parts = [make_batch(first.policy(), [5, 4], seed=1), make_batch(first.policy(), [9], seed=2)]
    first.update(*parts)
    second.update(EpisodeBatch.concatenate(parts))
    np.testing.assert_array_equal(weights(first), weights(second))


def test_an_update_leaves_its_batch_alone() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    batch = make_batch(learner.policy(), [20, 11])
    for _, column in leaves(vars(batch)):
        column.flags.writeable = False  # as Ray hands it over
    before = batch.rewards.copy(), batch.observations.copy()
    learner.update(batch)
    np.testing.assert_array_equal(batch.rewards, before[0])
    np.testing.assert_array_equal(batch.observations, before[1])


# ---- the step


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


# ---- bootstrapping


@pytest.mark.parametrize("advantage", ["critic", "gae", "vtrace"])
@pytest.mark.parametrize(
    ("terminated", "truncated"),
    [(True, False), (False, True), (False, False), (True, True)],
    ids=["terminated", "truncated", "cut", "terminated at the time limit"],
)
def test_only_a_termination_ends_the_future(advantage: str, terminated: bool, truncated: bool) -> None:
    """One step of reward 2: the critic's target is 2, and γ v of the final observation where the episode went on."""
    config = {"advantage": advantage, "gamma": 0.5, "normalize_advantage": False}
    learner = make_learner(make_spec(), **config, n_epochs=1, batch_size=None)
    batch = make_batch(learner.policy(), [1], rewards=[2], terminated=[terminated], truncated=[truncated])
    with torch.no_grad():
        final_value = float(learner.network.value(torch.from_numpy(batch.final_observations)))
    assert abs(final_value) > 0.01
    _, metrics = learner.update(batch)
    expected = 2.0 if terminated else 2 + 0.5 * final_value
    assert metrics["train/mean_return_target"] == pytest.approx(expected, rel=1e-5)


def test_every_segment_has_its_own_future() -> None:
    # γ = 0.5: 8, and 1 + 1 + 1 = 3, 2 + 2 = 4, 4; bootstrapping from nothing without a critic
    config = {"advantage": "reward_to_go", "gamma": 0.5}
    learner = make_learner(make_spec(), **config)
    _, metrics = learner.update(make_batch(learner.policy(), [1, 3], rewards=[8, 1, 2, 4]))
    assert metrics["train/mean_return_target"] == pytest.approx((8 + 3 + 4 + 4) / 4)


def test_the_bootstrap_state_is_normalised_like_the_others() -> None:
    config = {"advantage": "critic", "gamma": 0.5, "normalize_advantage": False}
    learner = make_learner(make_spec(normalize_observations=True), **config, n_epochs=1)
    batch = make_batch(learner.policy(), [20])
    policy, _ = learner.update(dataclasses.replace(batch, observations=5 + 3 * batch.observations))
    batch = make_batch(policy, [1], rewards=[2], terminated=[False], truncated=[True])
    network = copy.deepcopy(learner.network)
    policy, metrics = learner.update(batch)
    mean, std = policy.weights["observation_mean"], policy.weights["observation_std"]
    with torch.no_grad():
        final_value = float(network.value(torch.from_numpy((batch.final_observations - mean) / std)))
    assert metrics["train/mean_return_target"] == pytest.approx(2 + 0.5 * final_value, rel=1e-5)


def test_vtrace_corrects_for_the_policy_that_flew() -> None:
    config = {"kind": PolicyGradient, "advantage": "vtrace", "gamma": 0.9}
    learner = make_learner(make_spec(), **config, learning_rate=0.05)
    stale = make_batch(learner.policy(), [5, 8], seed=1)
    fly_and_update(learner, 4, first_seed=2)
    with torch.no_grad():
        outputs = learner.network(torch.from_numpy(stale.observations), torch.from_numpy(stale.actions))
        log_ratios = outputs.log_probs - torch.from_numpy(stale.notes["log_prob"])
        steps = Trajectories(
            rewards=torch.from_numpy(stale.rewards),
            ends=torch.tensor([4, 12]),
            terminated=torch.ones(2),
            longest=8,
            values=outputs.values,
            final_values=torch.zeros(2),
            log_ratios=log_ratios,
        )
        _, corrected = vtrace(steps, 0.9, 0.95)
        _, uncorrected = vtrace(steps._replace(log_ratios=0 * log_ratios), 0.9, 0.95)
    found = learner.update(stale)[1]["train/mean_return_target"]
    assert found == pytest.approx(float(corrected.mean()), rel=1e-4)
    assert found != pytest.approx(float(uncorrected.mean()), rel=1e-2)


def plain_ratio(outputs: Outputs, batch: Steps, config: PPO) -> tuple[Tensor, Metrics]:
    """A surrogate of the user's."""
    return -((outputs.log_probs - batch.log_probs).exp() * batch.advantages).mean(), {}


@pytest.mark.parametrize(
    "kind", [PPO(), PolicyGradient(), OwnLoss(function=plain_ratio)], ids=["ppo", "policy gradient", "mine"]
)
def test_with_vtrace_no_loss_corrects_for_the_behaviour_policy_twice(kind: PPO) -> None:
    """Action 0 earns 1, action 1 nothing. The gradient by the logits of a uniform policy is π₀ (1 − π₀) = ¼ and −¼."""
    config = {"advantage": "vtrace", "normalize_advantage": False, **ONE_SGD_STEP}
    learner = make_learner(make_spec(action=Discrete(2)), kind, **config)
    batch = make_batch(learner.policy(), [1] * 8, rewards=[1, 1, 1, 1, 1, 0, 0, 0])
    batch = dataclasses.replace(
        batch,
        observations=np.zeros_like(batch.observations),  # of which networks with no biases yet make 0
        actions=np.array([0, 0, 0, 0, 0, 1, 1, 1]),
        notes={"log_prob": np.log([0.625] * 5 + [0.375] * 3).astype(np.float32)},
    )
    policy, metrics = learner.update(batch)
    np.testing.assert_allclose(policy.weights["b2"], [0.25, -0.25], rtol=1e-5)
    ratios = np.array([0.5 / 0.625] * 5 + [0.5 / 0.375] * 3)
    assert metrics["train/behaviour_kl"] == pytest.approx((ratios - 1 - np.log(ratios)).mean(), rel=1e-4)


def test_explained_variance() -> None:
    learner = make_learner(make_spec(), advantage="critic")
    batch = make_batch(learner.policy(), [1] * 6)  # the targets are the rewards
    with torch.no_grad():
        values = learner.network.value(torch.from_numpy(batch.observations)).numpy()
    _, metrics = learner.update(batch)
    expected = 1 - np.var(batch.rewards - values) / np.var(batch.rewards)
    assert metrics["train/explained_variance"] == pytest.approx(expected, rel=1e-4)


# ---- the policy


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_the_policy_is_the_network(
    actions: Literal["categorical", "gaussian"], activation: str, normalised: bool
) -> None:
    spec = make_spec(actions, activation=activation, normalize_observations=normalised)
    learner = make_learner(spec, learning_rate=0.05)
    fly_and_update(learner, 3)
    policy = learner.policy()
    assert policy.spec == dataclasses.replace(spec, version=3)
    observations = np.random.default_rng(1).standard_normal((50, 4), dtype=np.float32)
    observations[0] = 1e3  # beyond what a normalised observation may be
    inputs = observations
    if normalised:
        standard = (observations - policy.weights["observation_mean"]) / policy.weights["observation_std"]
        inputs = np.clip(standard, -10, 10)
    with torch.no_grad():
        expected = learner.network.actor(torch.from_numpy(inputs)).numpy()
    assert np.ptp(expected[1:], axis=0).min() > 0.1
    np.testing.assert_allclose(policy.forward(observations), expected, rtol=1e-4, atol=1e-5)


def test_the_policy_of_an_update_is_the_learners() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    policy, _ = learner.update(make_batch(learner.policy(), [20]))
    for name, array in learner.policy().weights.items():
        np.testing.assert_array_equal(policy.weights[name], array)
    before = {name: array.copy() for name, array in policy.weights.items()}
    fly_and_update(learner, 1)  # a policy that has gone out stays what it was
    for name, array in policy.weights.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_experience_of_the_newest_policy_is_on_policy(actions: Literal["categorical", "gaussian"]) -> None:
    """The learner finds the log-probabilities that the actor noted: a KL divergence of 0 before the first step."""
    learner = make_learner(make_spec(actions), **ONE_LOOK)
    for seed in range(4):
        _, metrics = learner.update(make_batch(learner.policy(), [20, 11], seed=seed))
        assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["train/clip_fraction"] == 0
    stale = make_batch(make_learner(make_spec(actions), seed=0).policy(), [20, 11], seed=9)
    assert learner.update(stale)[1]["train/approx_kl"] > 1e-3


@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
def test_what_a_batch_changes_of_the_statistics_counts_as_a_change_of_the_policy(
    actions: Literal["categorical", "gaussian"],
) -> None:
    """The learner's ratios are of the policy that it trains, which has the newer statistics, to the one that flew;
    both clip outliers."""
    learner = make_learner(make_spec(actions, activation="relu", normalize_observations=True), **ONE_LOOK)
    fly_and_update(learner, 5)
    for seed in range(4):
        behaviour = learner.policy()
        batch = make_batch(behaviour, [20, 11], seed=seed)
        batch.observations[3] = 1000.0
        log_probs = behaviour.distribution.log_prob(behaviour.forward(batch.observations), batch.actions)
        newest, metrics = learner.update(dataclasses.replace(batch, notes={"log_prob": log_probs}))
        statistics = {name: newest.weights[name] for name in ("observation_mean", "observation_std")}
        assert (statistics["observation_mean"] + 10 * statistics["observation_std"] < 1000).all() or seed
        trained = Policy(behaviour.spec, behaviour.weights | statistics)
        log_ratios = trained.distribution.log_prob(trained.forward(batch.observations), batch.actions) - log_probs
        expected = (np.exp(log_ratios) - 1 - log_ratios).mean()
        assert metrics["train/approx_kl"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_first_update_already_learns_from_normalised_observations(activation: str) -> None:
    """Wherever and however large they are."""
    spec = make_spec(activation=activation, normalize_observations=True)
    found = []
    for offset, scale in ((0.0, 1.0), (500.0, 50.0)):
        learner = make_learner(spec)
        batch = make_batch(make_learner(make_spec()).policy(), [20, 30], truncated=[True, True])
        moved = {
            name: (offset + scale * getattr(batch, name)).astype(np.float32)
            for name in ("observations", "final_observations")
        }
        found.append((learner.update(dataclasses.replace(batch, **moved))[1], weights(learner)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-3)
    assert found[1][0]["train/explained_variance"] > -1


def test_the_policy_carries_statistics_of_all_observations() -> None:
    learner = make_learner(make_spec(normalize_observations=True))
    batches = [make_batch(learner.policy(), [20 + i, 7], seed=i) for i in range(3)]
    for batch in batches:
        policy, _ = learner.update(batch)
    everything = np.concatenate([batch.observations for batch in batches])
    np.testing.assert_allclose(policy.weights["observation_mean"], everything.mean(0), atol=1e-6)
    np.testing.assert_allclose(policy.weights["observation_std"], everything.std(0), rtol=1e-5)


def test_observations_of_any_shape_are_flattened() -> None:
    learner = make_learner(make_spec(observation=Box((2, 3)), normalize_observations=True))
    metrics = fly_and_update(learner, 2)
    assert all(math.isfinite(value) for value in metrics.values())
    assert learner.policy().weights["w0"].shape == (6, 8)


def test_a_small_signal_on_a_large_offset_is_learned_from_and_acted_on() -> None:
    """float32 has no number between 1e9 and 1e9 + 64."""
    env_id = "tests.actors.fake_environments:Faint-v0"
    spec = describe(env_id).policy_spec(hidden_sizes=(8,), normalize_observations=True)
    learner = make_learner(spec, gamma=0.5, batch_size=None, learning_rate=0.02)
    rollout = Rollout(make_environments(env_id, 8, seed=0), seed=0)
    for _ in range(30):
        batch = rollout.fragments(learner.policy(), 32)
        assert batch.observations.dtype == batch.final_observations.dtype == np.float64
        learner.update(batch)
    returns, _, _ = fly_episodes(learner.policy(), range(10))
    assert returns.mean() == 10
    assert learner.policy().forward(np.array([[1e9 - 0.01], [1e9 + 0.01]])).dtype == np.float32


# ---- what bad things get


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
