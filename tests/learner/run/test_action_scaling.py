"""Action bounds far from ±1 are learned like any others, and what was learned without scaling goes on without."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from actors.environments import describe
from actors.rollout import Rollout
from actors.vectors import GymnasiumEnvironments
from tests.actors import fake_environments  # noqa: F401 registers
from tests.learner.learners import make_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

UPDATE = {"n_epochs": 4, "batch_size": 64, "learning_rate": 1e-2}


@pytest.mark.parametrize(("env_id", "target", "tolerance"), [("AimNear-v0", 4.5, 0.1), ("AimFar-v0", 300, 50)])
def test_bounds_far_from_one_are_learned(env_id: str, target: float, tolerance: float) -> None:
    learner = make_learner(describe(env_id).policy_spec(hidden_sizes=(8,)), gamma=0.9, **UPDATE)
    rollout = Rollout(GymnasiumEnvironments(env_id, 16, seed=0), seed=0)
    for _ in range(10):
        learner.update(rollout.fragments(learner.policy(), 32))
    assert learner.policy().act(np.zeros((1, 1), np.float32)) == pytest.approx(target, abs=tolerance)


def test_a_state_from_before_scaling_goes_on_without() -> None:
    spec = describe("AimNear-v0").policy_spec(hidden_sizes=(8,))
    old = make_learner(dataclasses.replace(spec, scale_actions=False), **UPDATE, seed=1)
    state = old.state()
    del state["scale_actions"]  # as a state was before
    for saved in (state, old.state()):
        resumed = make_learner(spec, **UPDATE)
        resumed.load_state(saved)
        assert resumed.policy().spec == old.policy().spec
        assert not resumed.state()["scale_actions"]
    scaled = make_learner(spec, **UPDATE)
    scaled.load_state(scaled.state())
    assert scaled.policy().spec.scale_actions
