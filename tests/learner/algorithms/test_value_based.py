"""What algorithms that learn action values share: the schedule of ε, and which actions they take."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import UserError
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.algorithms.pqn import PQN
from tests.learner import make_batch
from tests.learner.algorithms.valued import value_learner, valued_spec

KINDS = pytest.mark.parametrize("kind", [DQN, PQN])
BY_STEPS: dict[str, Any] = {"exploration_initial_eps": 0.9, "exploration_final_eps": 0.1, "exploration_steps": 100}


@KINDS
@pytest.mark.parametrize(
    ("steps", "epsilon"), [(0, 0.9), (25, 0.7), (50, 0.5), (99, 0.108), (100, 0.1), (101, 0.1), (10**9, 0.1)]
)
def test_epsilon_falls_on_a_line_and_stays(kind: type[DQN | PQN], steps: int, epsilon: float) -> None:
    assert kind(**BY_STEPS).epsilon(steps) == pytest.approx(epsilon)


@KINDS
def test_epsilon_may_stay_as_it_is_or_rise(kind: type[DQN | PQN]) -> None:
    still, rising = ({"exploration_initial_eps": 0.3, "exploration_final_eps": final} for final in (0.3, 0.7))
    assert [kind(**still, exploration_steps=10).epsilon(steps) for steps in (0, 5, 50)] == [0.3] * 3
    assert kind(**rising, exploration_steps=10).epsilon(5) == pytest.approx(0.5)


@KINDS
def test_policies_explore_by_the_steps_that_were_learned_from(kind: type[DQN | PQN]) -> None:
    """Even before anything is learned: of a replay memory that is not yet full enough."""
    algorithm: Algorithm = kind(**BY_STEPS)
    learner = value_learner(valued_spec(), algorithm)
    policies = [learner.policy()]
    for lengths in ([20, 5], [15, 10], [60], [3]):
        policies.append(learner.update(make_batch(policies[-1], lengths))[0])
    epsilons = [float(policy.weights["epsilon"][0]) for policy in policies]
    assert epsilons == pytest.approx([0.9, 0.7, 0.5, 0.1, 0.1])
    assert [policy.distribution.epsilon for policy in policies] == epsilons


@KINDS
def test_it_takes_the_actions_of_a_number(kind: type[DQN | PQN]) -> None:
    assert kind().distribution(Discrete(4, start=-1)) == "epsilon_greedy"


@KINDS
@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Box((2,), low=(-1.0, -1.0), high=(1.0, 1.0)), "2 numbers"),
        (MultiDiscrete((3, 2), (2,)), MultiDiscrete((3, 2), (2,)).in_words()),
        (MultiBinary((3,)), MultiBinary((3,)).in_words()),
    ],
    ids=["continuous", "several", "switches"],
)
def test_other_actions_are_refused_in_one_line(kind: type[DQN | PQN], action: Space, said: str) -> None:
    with pytest.raises(UserError, match=r"^each of a number of actions gets a value, and an action here is") as error:
        kind().distribution(action)
    assert said in str(error.value)
    assert "ppo" in str(error.value)
    assert "\n" not in str(error.value)


@KINDS
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exploration_initial_eps": 1.1}, "exploration_initial_eps must lie between 0 and 1, not 1.1"),
        ({"exploration_initial_eps": float("nan")}, "exploration_initial_eps must lie between 0 and 1, not nan"),
        ({"exploration_final_eps": -0.1}, "exploration_final_eps must lie between 0 and 1, not -0.1"),
        ({"exploration_steps": 0}, "exploration_steps must be 1 or more, not 0"),
        ({"gamma": 1.5}, "gamma must lie between 0 and 1, not 1.5"),
        ({"batch_size": 1}, "batch_size must be 2 or more, or None for the whole batch, not 1"),
    ],
)
def test_impossible_options(kind: type[DQN | PQN], options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        kind(**options)
    assert str(error.value) == said
