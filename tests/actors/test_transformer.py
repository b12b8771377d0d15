"""What a policy that acts for a return remembers of it; its attention is tested beside its twin in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actors.policy import Policy
from tests.actors.examples import policy_for

UNITS = 8


def acting_for(target: float, env_id: str = "CartPole-v1") -> Policy:
    network: dict[str, Any] = {"memory": "transformer", "memory_size": UNITS, "memory_window": 4}
    return policy_for(env_id, target_return=target, **network)


def test_it_is_told_what_each_episode_is_for() -> None:
    policy = acting_for(30.0)
    assert policy.start(2)["core"][:, UNITS].tolist() == [30, 30]
    asked = policy.start(2, np.array([5, -1]))
    assert asked["core"][:, UNITS].tolist() == [5, -1]
    np.testing.assert_array_equal(asked["core"][0], policy.asked_for(5).start(1)["core"][0])
    assert policy.rewarded(asked, np.array([1.0, 0.5]))["core"][:, UNITS].tolist() == [4, -1.5]


@pytest.mark.parametrize("target", [30.0, None])
def test_who_acts_for_a_return_is_sampled(target: float | None) -> None:
    policy = policy_for("CartPole-v1") if target is None else acting_for(target)
    assert policy.spec.is_sampled == (target is not None)


def test_it_remembers_what_somebody_else_did() -> None:
    policy = acting_for(30.0)
    memory = policy.step(np.zeros((1, 4), np.float32), policy.start(1)).memory
    for action in (0, 1):
        memory = policy.acted(memory, np.array([action]))
        assert memory["core"][0, UNITS + 2 : UNITS + 4].tolist() == [1 - action, action]
    assert policy_for("CartPole-v1").acted({}, np.array([0])) == {}


@pytest.mark.parametrize("steps", [-1e30, -1, 0.5, 2**24, 3e38])
def test_any_number_of_steps_is_borne(steps: float) -> None:
    """Memories come with requests, too."""
    policy = acting_for(30.0)
    memory = policy.start(1)
    memory["core"][:, UNITS + 1] = steps
    assert np.isfinite(policy.step(np.zeros((1, 4), np.float32), memory).parameters).all()
