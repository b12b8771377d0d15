"""What observations and actions are made of."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from actors.errors import UserError
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space, bounded, space_of

PAIRS: list[tuple[gymnasium.Space[Any], Space]] = [
    (spaces.Box(-1, 1, (2, 3), np.float32), Box((2, 3))),
    (spaces.Box(0, 255, (4,), np.uint8), Box((4,))),
    (spaces.Box(-1, 1, (), np.float64), Box((), "float64")),
    (spaces.Discrete(5), Discrete(5)),
    (spaces.Discrete(3, start=-1), Discrete(3, -1)),
    (spaces.MultiDiscrete([3, 2]), MultiDiscrete((3, 2), (2,))),
    (
        spaces.MultiDiscrete([[3, 2], [4, 5]], start=[[0, 1], [0, -7]]),
        MultiDiscrete((3, 2, 4, 5), (2, 2), (0, 1, 0, -7)),
    ),
    (spaces.MultiBinary(3), MultiBinary((3,))),
    (spaces.MultiBinary([2, 2]), MultiBinary((2, 2))),
]
NAMES = [str(theirs) for theirs, _ in PAIRS]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=NAMES)
def test_a_network_sees_what_gymnasium_flattens(theirs: gymnasium.Space[Any], ours: Space) -> None:
    assert space_of(theirs) == ours
    theirs.seed(0)
    values = [theirs.sample() for _ in range(30)]
    seen = ours.encode(np.array(values, ours.dtype))
    assert seen.shape == (30, ours.inputs)
    assert seen.dtype == ("float64" if ours.dtype == "float64" else "float32")
    np.testing.assert_array_equal(seen, [flatten(theirs, value) for value in values])


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=NAMES)
def test_its_samples_are_its_values(theirs: gymnasium.Space[Any], ours: Space) -> None:
    values = ours.sample(np.random.default_rng(0), 100)
    assert values.shape == (100, *ours.shape)
    assert values.dtype == ours.dtype
    assert not ours.outside(values).any()
    if not isinstance(ours, Box):
        assert all(theirs.contains(value) for value in values)
        assert len(np.unique(values.reshape(100, -1), axis=0)) > 1


@pytest.mark.parametrize(
    "theirs", [spaces.Text(3), spaces.Dict({"a": spaces.Discrete(2)}), spaces.Sequence(spaces.Discrete(2))]
)
def test_others_are_none(theirs: gymnasium.Space[Any]) -> None:
    assert space_of(theirs) is None


def test_numbers_outside_are_found_where_they_are() -> None:
    space = MultiDiscrete((3, 2), (2,), (0, 5))
    outside = space.outside(np.array([[0, 5], [3, 6], [-1, 7]]))
    np.testing.assert_array_equal(outside, [[False, False], [True, False], [True, True]])


def test_bounds_beyond_single_precision_are_none() -> None:
    space = bounded(spaces.Box(np.array([-1e300, -2.0]), np.array([1.0, np.inf]), dtype=np.float64))
    assert space == Box((2,), low=(-np.inf, -2.0), high=(1.0, np.inf))


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Box, {"shape": (0,)}, "sizes must be positive"),
        (Box, {"shape": (1,) * 33}, "33 dimensions"),
        (Box, {"shape": (2,), "low": (0.0,), "high": (1.0,)}, "2 numbers each"),
        (Box, {"shape": (1,), "low": (2.0,), "high": (1.0,)}, "low must be at most high"),
        (Box, {"shape": (1,), "low": (0.0,), "high": (1e300,)}, "32-bit floats"),
        (Discrete, {"n": 0}, "sizes must be positive"),
        (Discrete, {"n": 2, "start": 2**40}, "start must be"),
        (MultiDiscrete, {"nvec": (2, 0), "shape": (2,)}, "sizes must be positive"),
        (MultiDiscrete, {"nvec": (2,), "shape": (2,)}, "a number for each"),
        (MultiDiscrete, {"nvec": (2, 2), "shape": (2,), "start": (1,)}, "a number for each"),
        (MultiBinary, {"shape": (-1,)}, "sizes must be positive"),
    ],
)
def test_impossible_spaces_are_refused(kind: type[Space], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kind(**fields)
