"""What a critic is taught: the rewards of a segment and what follows it, corrected once for the policy that flew."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.spaces import Discrete
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.returns import Trajectories, vtrace
from learner.networks.actor_critic import Outputs
from tests.learner import make_batch, make_spec
from tests.learner.learners import ONE_SGD_STEP, Metrics, OwnLoss, Steps, fly_and_update, make_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings


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
