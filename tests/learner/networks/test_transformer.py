"""The Decision Transformer: a ring of keys acts as the whole forward pass that is learned."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from actors.cores import CORE
from actors.memory import restarted
from actors.policy import Policy
from actors.spaces import Box, Discrete
from actors.spec import PolicyNetwork, PolicySpec
from actors.transformer import alibi
from learner.networks.torch_policy import TorchPolicy
from learner.networks.transformer import TorchTransformer
from tests.actors.examples import random_policy, reshaped

NETWORK = PolicyNetwork((8,), memory="transformer", memory_size=12, memory_layers=3, memory_heads=4, memory_window=7)
DISCRETE = PolicySpec("CartPole-v1", Box((4,)), Discrete(2), "categorical", network=NETWORK, target_return=200.0)
CONTINUOUS = PolicySpec(
    "Pendulum-v1", Box((3,)), Box((1,), low=(-2.0,), high=(2.0,)), "gaussian", network=NETWORK, target_return=-200.0
)


def banded(steps: int, window: int, heads: int) -> torch.Tensor:
    """ALiBi with a band: step t sees the steps t − window + 1 … t; written out by its definition."""
    bias = torch.full((heads, steps, steps), -torch.inf)
    for h in range(heads):
        for t in range(steps):
            for s in range(max(0, t - window + 1), t + 1):
                bias[h, t, s] = -(2.0 ** (-8 * (h + 1) / heads)) * (t - s)
    return bias


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_two_hundred_steps_with_resets_are_the_whole_forward_pass(spec: PolicySpec) -> None:
    policy, rng = random_policy(spec), np.random.default_rng(0)
    network = TorchPolicy(spec)
    network.load_policy_weights(policy.weights)
    assert isinstance(network.core, TorchTransformer)
    slots, actions_taken = 5, spec.action.inputs
    episodes: list[list[dict[str, np.ndarray]]] = [[] for _ in range(slots)]
    memory = policy.start(slots)
    to_come = np.full(slots, spec.target_return)
    previous = np.zeros((slots, actions_taken), np.float32)
    checked = 0

    def check(episode: list[dict[str, np.ndarray]]) -> int:
        x, acted, asked, expected = (
            torch.from_numpy(np.stack([step[name] for step in episode]))
            for name in ("observations", "previous", "to_come", "parameters")
        )
        steps = len(episode)
        network.core._bias = banded(steps, NETWORK.memory_window, NETWORK.memory_heads)
        with torch.no_grad():
            features = network.core(network.hidden(x)[None], acted[None], asked[None].float())[0]
            torch.testing.assert_close(network.parameters_after(features), expected, atol=2e-4, rtol=1e-4)
        return steps

    for _ in range(200):
        observations = rng.standard_normal((slots, *spec.observation.shape), np.float32)
        step = policy.step(observations, memory, policy.distribution.noise(rng, (slots,)))
        for slot in range(slots):
            row = {"observations": observations, "previous": previous, "to_come": to_come}
            episodes[slot].append(
                {k: v[slot].copy() for k, v in row.items()} | {"parameters": step.parameters[slot].copy()}
            )
        rewards = rng.standard_normal(slots).astype(np.float32)
        to_come = to_come - rewards
        previous = spec.action.encode(step.actions)
        begins = rng.random(slots) < 0.03
        memory = restarted(policy.rewarded(step.memory, rewards), begins, policy)
        to_come[begins], previous[begins] = spec.target_return, 0
        for slot in np.flatnonzero(begins):
            checked += check(episodes[slot])
            episodes[slot] = []
    for episode in episodes:
        checked += check(episode) if episode else 0
    assert checked == 200 * slots


def test_a_window_that_is_learned_is_biased_as_the_ring_is() -> None:
    network = TorchPolicy(DISCRETE)
    assert isinstance(network.core, TorchTransformer)
    mine, plain = network.core._bias, banded(7, 7, 4)
    torch.testing.assert_close(torch.where(mine < -1e29, -torch.inf, mine), plain)
    full = alibi(2, 3)
    np.testing.assert_array_equal(full[3:] > -1e29, np.ones((3, 2, 3), bool))


def test_another_return_that_is_asked_for_is_another_policy() -> None:
    policy = random_policy(DISCRETE)
    other = policy.asked_for(-50)
    assert other.spec.target_return == -50
    observations = np.zeros((2, 4), np.float32)
    one, two = policy.step(observations, policy.start(2)), other.step(observations, other.start(2))
    assert np.abs(one.parameters - two.parameters).max() > 1e-3
    assert other.start(2)[CORE].shape == policy.start(2)[CORE].shape


def test_what_is_learned_acts_by_its_weights() -> None:
    spec = reshaped(DISCRETE, memory_window=4)
    network = TorchPolicy(spec)
    assert isinstance(network.core, TorchTransformer)
    network.core.set_returns(10.0, 3.0)
    policy = Policy(dataclasses.replace(spec, version=3), network.policy_weights())
    assert policy.weights["core_return_mean"] == 10
    assert policy.weights["core_return_std"] == 3
    assert spec.num_learned == network.num_policy_parameters
