"""Small synthetic experience, shared by the learner's tests."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from actors.episode import EpisodeBatch
from actors.parts import Parts
from actors.policy import Memory, Policy
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import Array, Tree, rows

property_test = settings(derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
"""Hypothesis, the same examples in every run."""


ACTIONS: dict[str, Space] = {
    "categorical": Discrete(3),
    "epsilon_greedy": Discrete(3),
    "multi_categorical": MultiDiscrete((3, 2), (2,)),
    "bernoulli": MultiBinary((3,)),
    "gaussian": Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    "squashed_gaussian": Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    "state_dependent_gaussian": Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    "joint": Parts(
        {
            "lift": Discrete(3, start=-1),
            "arms": Parts({"0": Box((1, 2), low=(3.0, -1.0), high=(5.0, 1.0)), "1": MultiBinary((2,))}, is_tuple=True),
            "gears": MultiDiscrete((2, 3), (2,), (1, 0)),
        }
    ),
}


def make_spec(
    distribution: str = "categorical", observation: Space | None = None, action: Space | None = None, **network: Any
) -> PolicySpec:
    """Four observations, three actions (or two continuous ones), two small layers."""
    shape = PolicyNetwork(**{"hidden_sizes": (8, 8), **network})
    spaces = observation or Box((4,)), action or ACTIONS[distribution]
    return PolicySpec("Synthetic-v0", *spaces, distribution, network=shape)


def make_batch(
    policy: Policy,
    lengths: Sequence[int],
    seed: int = 0,
    rewards: Sequence[float] | None = None,
    terminated: Sequence[bool] | None = None,
    truncated: Sequence[bool] | None = None,
) -> EpisodeBatch:
    """Random observations and rewards, actions that ``policy`` sampled; segments of these lengths, all terminated.

    A policy that remembers does so from random memories at each segment's start.
    """
    rng = np.random.default_rng(seed)
    steps, segments, space = sum(lengths), len(lengths), policy.spec.observation
    observations = space.sample(rng, steps)
    starts = np.cumsum([0, *lengths[:-1]])
    kept = {"observations": space.newest(observations), "earlier": space.earlier(rows(observations, starts))}
    if space.has_frames:
        kept["final_observations"] = space.newest(space.sample(rng, segments))
        parts = kept["observations"], kept["final_observations"], kept["earlier"]
        observations, _ = space.restored(*parts, np.array(lengths))
    memories = {name: rng.uniform(-1, 1, own.shape).astype(np.float32) for name, own in policy.start(segments).items()}
    parameters = in_order(policy, observations, lengths, memories) if memories else policy.forward(observations)
    actions = policy.distribution.sample(parameters, policy.distribution.noise(rng, (steps,)))
    ended = np.ones(segments, bool) if terminated is None else np.array(terminated)
    cut = np.zeros(segments, bool) if truncated is None else np.array(truncated)
    finished = ended | cut
    return EpisodeBatch(
        actions=actions,
        rewards=rng.standard_normal(steps, dtype=np.float32) if rewards is None else np.array(rewards, np.float32),
        notes=policy.distribution.notes(parameters, actions),
        segment_lengths=np.array(lengths, np.int32),
        terminated=ended,
        truncated=cut,
        policy_version=np.full(segments, policy.spec.version),
        episode_returns=np.zeros(np.count_nonzero(finished)),
        episode_lengths=np.array(lengths)[finished],
        memories=memories,
        **(kept if space.has_frames else {**kept, "final_observations": space.sample(rng, segments)}),
    )


def in_order(policy: Policy, observations: Tree, lengths: Sequence[int], memories: Memory) -> Array:
    """The parameters of a policy's steps in segments of these lengths, [T, P], from the memories at their starts."""
    found, row = [], 0
    for i, length in enumerate(lengths):
        memory = rows(memories, slice(i, i + 1))
        for _ in range(length):
            step = policy.step(rows(observations, slice(row, row + 1)), memory)
            found.append(step.parameters)
            memory, row = step.memory, row + 1
    return np.concatenate(found)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the operating system refuse any file larger than ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
