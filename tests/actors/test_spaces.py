"""What observations and actions are made of."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from actors.errors import UserError
from actors.gymnasium_spaces import action_space_of, space_of
from actors.parts import Parts
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.trees import leaves, length

PAIR = Parts({"0": MultiBinary((2,)), "1": Parts({"x": Discrete(2, 1)})}, is_tuple=True)
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
    (
        spaces.Dict(b=spaces.Discrete(3), a=spaces.Box(-1, 1, (2,), np.float32)),
        Parts({"b": Discrete(3), "a": Box((2,))}),
    ),
    (spaces.Tuple([spaces.MultiBinary(2), spaces.Dict(x=spaces.Discrete(2, start=1))]), PAIR),
    (spaces.MultiBinary([2, 2]), MultiBinary((2, 2))),
]
NAMES = [str(theirs) for theirs, _ in PAIRS]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=NAMES)
def test_a_network_sees_what_gymnasium_flattens(theirs: gymnasium.Space[Any], ours: Space) -> None:
    assert space_of(theirs) == ours
    theirs.seed(0)
    values = [theirs.sample() for _ in range(30)]
    seen = ours.encode(ours.stack(values))
    assert seen.shape == (30, ours.inputs)
    assert seen.dtype == ("float64" if ours.dtype == "float64" else "float32")
    np.testing.assert_array_equal(seen, [flatten(theirs, value) for value in values])


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=NAMES)
def test_a_first_layer_is_the_product_with_what_a_network_sees(theirs: gymnasium.Space[Any], ours: Space) -> None:
    rng = np.random.default_rng(0)
    values, weights = ours.sample(rng, 50), rng.standard_normal((ours.inputs, 7), np.float32)
    np.testing.assert_allclose(ours.project(values, weights), ours.encode(values) @ weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=NAMES)
def test_its_samples_are_its_values(theirs: gymnasium.Space[Any], ours: Space) -> None:
    column = ours.sample(np.random.default_rng(0), 100)
    assert length(column) == 100
    assert not any(wrong.any() for _, wrong in leaves(ours.outside(column)))
    for (name, copy), (_, leaf) in zip(leaves(ours.copied(column)), leaves(column), strict=True):
        np.testing.assert_array_equal(copy, leaf, err_msg=name, strict=True)
        assert not np.shares_memory(copy, leaf)
        assert len(np.unique(leaf, axis=0)) > 1
    if isinstance(ours, Parts):
        assert hash(ours) == hash(space_of(theirs))
    else:
        assert column.shape == (100, *ours.shape)
        assert column.dtype == ours.dtype
    if isinstance(ours, Discrete | MultiDiscrete | MultiBinary):
        assert all(theirs.contains(value) for value in column)


def test_what_is_not_of_a_space_is_not_stacked() -> None:
    parts = Parts({"a": Discrete(2), "b": Parts({"0": MultiBinary((2,)), "1": Discrete(3, -1)}, is_tuple=True)})
    good = {"a": 1, "b": ([0, 1], -1)}
    parts.stack([good, good])
    for space, wrong, said in (
        (Box((2,)), np.zeros(3), r"an observation of shape \(3,\); its observation_space has \(2,\)"),
        (Box((2,)), ["a", "b"], r"an observation of <U\d+; its observation_space is of float32"),
        (Box((2,)), [[1], [1, 2]], r"an observation of shape None; its observation_space has \(2,\)"),
        (Discrete(2), 0.5, "an observation of float64; its observation_space is of int64"),
        (Discrete(3, -1), 2, "an observation of 2; its observation_space is a whole number from -1 to 1"),
        (Discrete(3), -1, "an observation of -1; its observation_space is a whole number from 0 to 2"),
        (MultiDiscrete((3, 3), (2,)), [3, 0], "an observation of 3; .* is 2 whole numbers, from 0 to 2, 0 to 2"),
        (MultiBinary((2,)), [300, 0], "an observation of 300; its observation_space is 2 zeros and ones"),
        (parts, good | {"a": 2}, r"an observation\['a'\] of 2; its observation_space is a whole number from 0 to 1"),
        (parts, good | {"b": ([0, 1], 2)}, r"an observation\['b'\]\[1\] of 2; "),
        (parts, {"a": 1}, r"an observation with the parts \['a'\]; its observation_space has \['a', 'b'\]"),
        (parts, good | {"c": 1}, r"with the parts \['a', 'b', 'c'\]"),
        (parts, good | {"b": ([0, 1],)}, r"an observation\['b'\] with the parts \[0\]; .* has \[0, 1\]"),
        (parts, good | {"b": [[0, 1], 1]}, r"an observation\['b'\] that is a list; .* needs a tuple"),
        (parts, np.zeros(2), "an observation that is a ndarray; its observation_space needs a dictionary"),
    ):
        for values in ([wrong], [space.sample(np.random.default_rng(0), 1)[0] if space is not parts else good, wrong]):
            with pytest.raises(UserError, match=said):
                space.stack(values)


def test_the_order_of_parts_is_part_of_a_space() -> None:
    """It decides which weight sees what."""
    one, other = Parts({"a": Discrete(2), "b": Box((2,))}), Parts({"b": Box((2,)), "a": Discrete(2)})
    assert one != other
    assert one == Parts(dict(one.spaces))


@pytest.mark.parametrize("name", ["", "a.b", 'a"b', "a\\b", "a\nb", "\ud800"])
def test_names_that_paths_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="parts must have printable names without"):
        Parts({name: Discrete(2)})


def test_parts_that_are_not_named_by_text_are_refused() -> None:
    with pytest.raises(UserError, match="parts must be named by text, not 0"):
        space_of(spaces.Dict({0: spaces.Discrete(2)}))


NESTED_WORDS = "an object of (a: a whole number from 0 to 1; b: a list of (0: 1 number))"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box(()), "one number"),
        (Box((1,)), "1 number"),
        (Box((2, 3)), "2 × 3 numbers"),
        (MultiBinary((1,)), "1 zero or one"),
        (MultiDiscrete((2,) * 100, (100,)), "100 whole numbers, from " + "0 to 1, " * 7 + "0 to 1 and 92 more"),
        (Parts({"a": Discrete(2), "b": Parts({"0": Box((1,))}, True)}), NESTED_WORDS),
    ],
)
def test_spaces_are_told_in_words(space: Space, words: str) -> None:
    assert space.in_words() == words


@pytest.mark.parametrize("theirs", [spaces.Text(3), spaces.Dict({"a": spaces.Text(3)})], ids=["Text", "Dict of one"])
def test_others_are_none(theirs: gymnasium.Space[Any]) -> None:
    assert space_of(theirs) is None


def test_a_space_has_parts_where_it_may_have_some() -> None:
    with pytest.raises(UserError, match="a space of parts must have some"):
        space_of(spaces.Dict())


def test_numbers_outside_are_found_where_they_are() -> None:
    space = MultiDiscrete((3, 2), (2,), (0, 5))
    outside = space.outside(np.array([[0, 5], [3, 6], [-1, 7]]))
    np.testing.assert_array_equal(outside, [[False, False], [True, False], [True, True]])


def test_bounds_beyond_single_precision_are_none() -> None:
    space = action_space_of(spaces.Box(np.array([-1e300, -2.0]), np.array([1.0, np.inf]), dtype=np.float64))
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
        (Discrete, {"n": 2**40}, r"below 2\*\*31"),
        (Discrete, {"n": 2, "start": 2**40}, "start must be"),
        (MultiDiscrete, {"nvec": (2, 0), "shape": (2,)}, "sizes must be positive"),
        (MultiDiscrete, {"nvec": (2,), "shape": (2,)}, "a number for each"),
        (MultiDiscrete, {"nvec": (2, 2), "shape": (2,), "start": (1,)}, "a number for each"),
        (MultiBinary, {"shape": (-1,)}, "sizes must be positive"),
        (Parts, {"spaces": {}}, "must have some"),
        (Parts, {"spaces": {"a": Discrete(2)}, "is_tuple": True}, "called 0, 1"),
    ],
)
def test_impossible_spaces_are_refused(kind: type[Space], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kind(**fields)
