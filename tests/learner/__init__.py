"""Small synthetic experience, shared by the learner's tests."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from hypothesis import HealthCheck, settings

from actors.episode import EpisodeBatch
from actors.policy import Policy, PolicySpec

property_test = settings(derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
"""Hypothesis, the same examples in every run."""


def make_spec(actions: Literal["categorical", "gaussian"] = "categorical", **changes: Any) -> PolicySpec:
    """Four observations, three actions (or two continuous ones), two small layers."""
    given: dict[str, Any] = {"env_id": "Synthetic-v0", "observation_shape": (4,), "hidden_sizes": (8, 8)}
    if actions == "gaussian":
        given |= {"action_size": 2, "action_low": (-1.0, -1.0), "action_high": (1.0, 1.0), "action_shape": (2,)}
    else:
        given |= {"action_size": 3}
    return PolicySpec(actions=actions, **given | changes)


def make_batch(
    policy: Policy,
    lengths: Sequence[int],
    seed: int = 0,
    rewards: Sequence[float] | None = None,
    terminated: Sequence[bool] | None = None,
    truncated: Sequence[bool] | None = None,
) -> EpisodeBatch:
    """Random observations and rewards, actions that ``policy`` sampled; segments of these lengths, all terminated."""
    rng = np.random.default_rng(seed)
    steps, segments, shape = sum(lengths), len(lengths), policy.spec.observation_shape
    observations = rng.standard_normal((steps, *shape), dtype=np.float32)
    parameters = policy.forward(observations)
    actions = policy.distribution.sample(parameters, policy.distribution.noise(rng, (steps,)))
    ended = np.ones(segments, bool) if terminated is None else np.array(terminated)
    cut = np.zeros(segments, bool) if truncated is None else np.array(truncated)
    finished = ended | cut
    return EpisodeBatch(
        observations=observations,
        actions=actions,
        rewards=rng.standard_normal(steps, dtype=np.float32) if rewards is None else np.array(rewards, np.float32),
        notes=policy.distribution.notes(parameters, actions),
        segment_lengths=np.array(lengths, np.int32),
        final_observations=rng.standard_normal((segments, *shape), dtype=np.float32),
        terminated=ended,
        truncated=cut,
        policy_version=np.full(segments, policy.spec.version),
        episode_returns=np.zeros(np.count_nonzero(finished)),
        episode_lengths=np.array(lengths)[finished],
    )


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the operating system refuse any file larger than ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
