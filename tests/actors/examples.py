"""Policies to test with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from actors.environments import describe
from actors.episode import Array, EpisodeBatch
from actors.policy import Memory, Policy, Step
from actors.spec import PolicySpec
from actors.trees import leaves


def random_policy(spec: PolicySpec, seed: int = 0) -> Policy:
    """Standard normal weights, made positive where they are a standard deviation."""
    rng = np.random.default_rng(seed)
    shapes = spec.weight_shapes()
    weights: dict[str, Array] = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    if spec.network.normalize_observations:
        weights["observation_std"] = np.abs(weights["observation_std"]) + 0.1
        for name in ("observation_mean", "observation_std"):
            weights[name] = weights[name].astype(spec.statistics_dtype)
    if "core_return_std" in weights:
        weights["core_return_std"] = np.abs(weights["core_return_std"]) + 0.1
    if "epsilon" in weights:
        weights["epsilon"][:] = 0.1
    return Policy(spec, weights)


def policy_for(env_id: str, seed: int = 0, **network: Any) -> Policy:
    """A random policy for an environment."""
    return random_policy(describe(env_id).policy_spec(**{"hidden_sizes": (8,), **network}), seed)


def stubborn_policy(env_id: str, action: int, version: int = 0) -> Policy:
    """Always takes the same discrete action, sampled or not."""
    spec = describe(env_id).policy_spec(hidden_sizes=(), version=version)
    weights = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    weights["b0"][action] = 1000.0  # no Gumbel noise comes near
    return Policy(spec, weights)


def reshaped(spec: PolicySpec, **network: Any) -> PolicySpec:
    """The spec with other fields of its network."""
    return dataclasses.replace(spec, network=dataclasses.replace(spec.network, **network))


class Counting(Policy):
    """Acts as the parity of the steps since the episode began, by a memory of its own."""

    def start(self, slots: int, target_returns: Array | None = None) -> Memory:
        """No step yet."""
        return {"steps": np.zeros((slots, 1), np.int64)}

    def step(self, observations: Array, memory: Memory, noise: Array | None = None) -> Step:
        """One more."""
        (actions,) = (memory["steps"] % 2).T
        return Step(self.distribution, self.forward(observations), actions, actions, {"steps": memory["steps"] + 1})


def assert_same_batches(left: EpisodeBatch, right: EpisodeBatch) -> None:
    """That every column is the same, to the bit."""
    for (name, mine), (other, theirs) in zip(leaves(vars(left)), leaves(vars(right)), strict=True):
        assert name == other
        np.testing.assert_array_equal(mine, theirs, err_msg=name, strict=True)
