"""Spaces of every kind are learned in."""

from __future__ import annotations

import pytest
import torch

from actors.environments import describe
from actors.evaluation import fly_episodes
from actors.rollout import Rollout
from actors.vectors import GymnasiumEnvironments
from tests.actors import fake_environments  # noqa: F401 registers
from tests.learner.learners import make_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

UPDATE = {"n_epochs": 4, "batch_size": 128, "learning_rate": 1e-2}


@pytest.mark.parametrize(
    ("env_id", "best"),
    [
        *((name, 1) for name in ("Cells-v0", "Choices-v0", "Switches-v0", "Parts-v0")),  # who does what is shown
        # who does the best of what is allowed
        *((name, 3) for name in ("OneOf-v0", "SomeOf-v0", "EachOf-v0", "PartsOf-v0", "SteeredOf-v0")),
    ],
)
def test_the_best_is_learned_in_every_space(env_id: str, best: int) -> None:
    learner = make_learner(describe(env_id).policy_spec(hidden_sizes=(16,)), gamma=0.9, ent_coef=0.001, **UPDATE)
    rollout = Rollout(GymnasiumEnvironments(env_id, 16, seed=0), seed=0)
    for _ in range(25):
        learner.update(rollout.fragments(learner.policy(), 64))
    returns, _, _ = fly_episodes(learner.policy(), range(200))
    assert returns.mean() == best


def test_actions_of_discrete_and_continuous_parts_are_learned() -> None:
    """Four parts, each of which is to do what is shown: at random they pay 0.5."""
    env_id = "Orders-v0"
    learner = make_learner(describe(env_id).policy_spec(hidden_sizes=(32,)), gamma=0.9, ent_coef=0.001, **UPDATE)
    rollout = Rollout(GymnasiumEnvironments(env_id, 16, seed=0), seed=0)
    for _ in range(60):
        learner.update(rollout.fragments(learner.policy(), 64))
    returns, _, _ = fly_episodes(learner.policy(), range(200))
    assert returns.mean() > 0.9
