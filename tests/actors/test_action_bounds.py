"""From a network's numbers to actions, against Gymnasium's own wrapper."""

from __future__ import annotations

import gymnasium
import hypothesis.extra.numpy
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.wrappers import RescaleAction
from hypothesis import example, given
from hypothesis import strategies as st

from actors.action_bounds import ActionBounds
from actors.episode import Array
from tests.learner import property_test

MAX = float(np.finfo(np.float32).max)
BOUNDS = [((3.0,), (5.0,)), ((0.0,), (1000.0,)), ((-2.0, -1.0, 7.0), (2.0, 1.0, 7.5)), ((-1.0, -3.0), (1.0, -0.5))]
NUMBERS = np.random.default_rng(0).normal(scale=0.7, size=(500, 3)).astype(np.float32)


class Noting(gymnasium.Env[Array, Array]):
    """Notes the action that it is given."""

    observation_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, low: tuple[float, ...], high: tuple[float, ...]) -> None:
        self.action_space = Box(np.array(low, np.float32), np.array(high, np.float32))

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Array]]:
        return np.zeros(1, np.float32), 0.0, False, False, {"action": action}


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_it_scales_as_gymnasiums_rescale_action_does(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    numbers = NUMBERS[:, : len(low)]
    env = RescaleAction(Noting(low, high), np.float32(-1), np.float32(1))
    expected = [env.step(number)[4]["action"] for number in np.clip(numbers, -1, 1)]
    np.testing.assert_allclose(
        ActionBounds(low, high, True).actions(numbers), expected, rtol=1e-6, atol=1e-6 * max(high)
    )


def test_bounds_of_one_leave_every_bit() -> None:
    bounds = ActionBounds((-1.0,) * 3, (1.0,) * 3, True)
    numbers = np.concatenate([NUMBERS, -np.zeros((1, 3), np.float32)])
    assert bounds.actions(numbers).tobytes() == np.clip(numbers, np.float32(-1), np.float32(1)).tobytes()
    assert bounds.place(numbers) is numbers


def test_a_component_without_a_bound_is_only_clipped() -> None:
    bounds = ActionBounds((-np.inf, 0.0, -MAX, 2.0), (0.5, np.inf, MAX, 4.0), True)
    numbers = np.tile(NUMBERS[:, :1], 4)
    expected = np.clip(numbers, [-np.inf, 0, -MAX, -1], [0.5, np.inf, MAX, 1]).astype(np.float32)
    expected[:, 3] += 3
    np.testing.assert_array_equal(bounds.actions(numbers), expected)


def test_nothing_is_scaled_unless_told() -> None:
    bounds = ActionBounds((3.0,), (5.0,), False)
    np.testing.assert_array_equal(bounds.actions(np.array([[0], [4], [9]], np.float32)), [[3], [4], [5]])


@property_test
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=2).map(sorted),
    hypothesis.extra.numpy.arrays(np.float32, (20, 1), elements=st.floats(width=32, allow_nan=False)),
)
@example([-6.0, 2.0000100135803223], np.float32([[1], [-1]]))
@example([-(2.0**99), 1.0], np.float32([[1], [-1]]))
@example([1.0, 1.0 + 2.0**-23], np.float32([[1], [-1]]))
def test_every_action_lies_in_the_environments_space(ends: list[float], numbers: Array) -> None:
    """And the ends of the space are reached, however their middle and its distance from them are rounded."""
    (low, high), space = ends, Box(np.float32(ends[0]), np.float32(ends[1]), (1,))
    actions = ActionBounds((low,), (high,), True).actions(numbers)
    assert all(space.contains(action) for action in actions)
    assert actions[numbers >= 1].tolist() == [high] * int((numbers >= 1).sum())
    assert actions[numbers <= -1].tolist() == [low] * int((numbers <= -1).sum())
