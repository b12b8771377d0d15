"""Actions of several parts: as their parts are, each by itself."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.action_bounds import ActionBounds
from actors.check_env import try_out
from actors.discrete import Bernoulli, Categorical, MultiCategorical
from actors.environments import describe, fitting
from actors.errors import NonFiniteError, UserError
from actors.evaluation import fly_episodes
from actors.gaussians import Gaussian
from actors.gymnasium_spaces import action_space_of
from actors.joint import Joint
from actors.parts import Parts
from actors.rollout import Rollout
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import leaves
from actors.vectors import make_environments
from tests.actors.examples import policy_for, random_policy

LIFT, ARMS, BITS, GEARS = (
    Discrete(3, -1),
    Box((1, 2), low=(3.0, -1.0), high=(5.0, 1.0)),
    MultiBinary((2,)),
    MultiDiscrete((2, 3), (2,), (1, 0)),
)
SPACE = Parts({"lift": LIFT, "arms": Parts({"0": ARMS, "1": BITS}, is_tuple=True), "gears": GEARS})
LOG_STD = np.array([0.3, -0.5], np.float32)
JOINT = Joint(SPACE, LOG_STD, scaled=True)
ORDERS = "tests.actors.fake_environments:Orders-v0"
ALONE = {
    "lift": Categorical(3, -1),
    "arms.0": Gaussian(LOG_STD, ActionBounds(ARMS.low, ARMS.high, True), ARMS.shape),
    "arms.1": Bernoulli((2,)),
    "gears": MultiCategorical(GEARS),
}
PARAMETERS = {"lift": slice(0, 3), "arms.0": slice(3, 5), "arms.1": slice(5, 7), "gears": slice(7, 12)}


def drawn(count: int) -> tuple[Any, Any]:
    """Parameters, and actions as they are sampled."""
    rng = np.random.default_rng(0)
    parameters = rng.standard_normal((count, 12), np.float32)
    return parameters, JOINT.sample(parameters, JOINT.noise(rng, (count,)))


@pytest.mark.parametrize("is_random", [False, True])
def test_each_part_is_as_it_would_be_alone(is_random: bool) -> None:
    rng = np.random.default_rng(1)
    parameters = rng.standard_normal((400, 12), np.float32)
    noise = JOINT.noise(rng, (400,)) if is_random else None
    sampled = JOINT.sample(parameters, noise)
    assert sampled.dtype == np.float32
    flown, log_prob = dict(leaves(JOINT.flyable(sampled))), np.zeros(400, np.float32)
    assert [*flown] == [*ALONE]
    for name, alone in ALONE.items():
        own = PARAMETERS[name]
        actions = alone.sample(parameters[:, own], None if noise is None else noise[:, own])
        np.testing.assert_array_equal(flown[name], alone.flyable(actions), strict=True)
        log_prob += alone.log_prob(parameters[:, own], actions)
    np.testing.assert_allclose(JOINT.log_prob(parameters, sampled), log_prob, rtol=1e-5)


def test_actions_come_back_as_they_were_sampled() -> None:
    parameters, sampled = drawn(400)
    sampled[:, 1:3] = np.clip(sampled[:, 1:3], -1, 1)
    back = JOINT.as_sampled(JOINT.flyable(sampled))
    np.testing.assert_allclose(back, sampled, atol=1e-6)
    np.testing.assert_allclose(JOINT.log_prob(parameters, back), JOINT.log_prob(parameters, sampled), atol=1e-4)


def test_each_part_shows_what_it_would_alone() -> None:
    parameters, sampled = drawn(3)
    shown = JOINT.shown(parameters)
    assert {kind: [name for name, _ in leaves(tree)] for kind, tree in shown.items()} == {
        "probabilities": ["lift", "arms.1", "gears"],
        "mean": ["arms.0"],
    }
    for tree in shown.values():
        for name, column in leaves(tree):
            (expected,) = ALONE[name].shown(parameters[:, PARAMETERS[name]]).values()
            np.testing.assert_array_equal(column, expected)
    np.testing.assert_array_equal(JOINT.shown_once["std"]["arms"]["0"], ALONE["arms.0"].shown_once["std"])
    assert len(JOINT.labels) == 12
    assert JOINT.labels[:4] == ["lift: action -1", "lift: action 0", "lift: action 1", "arms.0: component 0"]
    lift, _, _, one, other, first, second = sampled[0].astype(int)
    switches = [5 + i for i, on in enumerate((one, other)) if on]
    assert JOINT.chosen(sampled[0]) == [lift, *switches, 7 + first, 9 + second]


def test_a_standard_deviation_that_is_infinite_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="log_std is of an infinite standard deviation"):
        Joint(SPACE, np.array([0, 1000], np.float32), scaled=True)


def test_an_environment_gets_what_its_space_has() -> None:
    """It raises at anything else; a policy that does what it sees would earn 1."""
    info = describe(ORDERS)
    assert isinstance(info.action, Parts)
    policy = policy_for(ORDERS)
    environments = make_environments(ORDERS, 4, seed=0)
    rollout = Rollout(environments, seed=0)
    batch = rollout.fragments(policy, 20)
    assert batch.actions.shape == (40, 7), "every other step begins an episode"
    assert np.isfinite(batch.notes["log_prob"]).all()
    seen = info.observation.stack([environments._envs[0].observation_space.sample()])  # type: ignore[attr-defined]
    (fitted,) = fitting(policy.act(seen), info.action_space)
    assert info.action_space.contains(fitted)
    for deterministic in (True, False):
        returns, _, _ = fly_episodes(policy, range(20), deterministic=deterministic)
        assert ((returns > 0) & (returns < 1)).all()
    assert len(try_out(ORDERS, 5)) == 5


def test_parts_that_no_policy_gives_are_refused() -> None:
    spaces = gymnasium.spaces
    for part in (spaces.Text(3), spaces.Box(0, 255, (4, 4), np.uint8)):
        assert action_space_of(spaces.Dict(a=spaces.Discrete(2), b=part)) is None
    with pytest.raises(UserError, match="a space of parts must have some"):
        action_space_of(spaces.Dict(a=spaces.Tuple([])))
    deep: gymnasium.Space[Any] = spaces.Discrete(2)
    for _ in range(15):
        deep = spaces.Tuple([deep])
    assert action_space_of(deep) is not None
    with pytest.raises(UserError, match="spaces are nested more than 16 deep"):
        action_space_of(spaces.Tuple([deep]))
    boundless = Parts({"a": Discrete(2), "b": Box((1,))})
    with pytest.raises(UserError, match="low and high are missing"):
        PolicySpec("Odd-v0", Box((2,)), boundless, "joint")
    with pytest.raises(UserError, match="joint distribution is not over actions of kind discrete"):
        PolicySpec("Odd-v0", Box((2,)), Discrete(2), "joint")


def test_a_transformer_does_not_remember_them() -> None:
    network = PolicyNetwork((8,), memory="transformer")
    with pytest.raises(UserError, match="remembers actions without parts"):
        PolicySpec("Odd-v0", Box((2,)), Parts({"a": LIFT}), "joint", network=network, target_return=1.0)


def test_a_mask_is_of_choices_and_switches() -> None:
    action = Parts({"a": Discrete(2), "b": ARMS, "c": BITS})
    seen = Parts({"a": Box((1,)), "action_mask": MultiBinary((2 + BITS.inputs,))})
    policy = random_policy(PolicySpec("Odd-v0", seen, action, "joint"))
    assert policy.spec.is_masked
    rng = np.random.default_rng(0)
    observations = seen.sample(rng, 200)
    observations["action_mask"][:, 0] = 0
    observations["action_mask"][:, 1] = 1
    step = policy.step(observations, {}, policy.distribution.noise(rng, (200,)))
    assert set(step.actions["a"]) == {1}
    switches = step.actions["c"].reshape(200, -1)
    assert not switches[observations["action_mask"][:, 2:] == 0].any()
    assert switches.any()
    greedy = policy.step(observations, {}).parameters
    free = policy.spec.chooses
    assert free is not None
    assert (np.abs(greedy[:, ~free]) < 1e6).all(), "means are as they were"
    policy.require_actions(observations)
    observations["action_mask"][3] = 0
    with pytest.raises(UserError, match="forbids every action"):
        policy.require_actions(observations)
    with pytest.raises(UserError, match="action_mask has 3 numbers, one for each of"):
        PolicySpec("Odd-v0", Parts({"a": Box((1,)), "action_mask": MultiBinary((3,))}), action, "joint")
    alone = Parts({"a": Box((1,)), "action_mask": MultiBinary((3,))})
    assert not PolicySpec("Odd-v0", alone, Parts({"b": ARMS}), "joint").is_masked


def test_a_policy_without_continuous_parts_has_no_deviations() -> None:
    space = Parts({"a": LIFT, "b": BITS})
    policy = random_policy(PolicySpec("Odd-v0", Box((2,)), space, "joint"))
    assert "log_std" not in policy.weights
    assert policy.distribution.shown_once == {}
