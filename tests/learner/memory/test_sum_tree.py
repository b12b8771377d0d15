"""The sum tree against plain running sums."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from actors.trees import Array
from learner.memory.sum_tree import SumTree
from tests.learner import property_test

CERTAINLY_WRONG = 1e-6
"""A p-value that a right sampler falls below once in a million seeds."""


def tree_of(weights: Array) -> SumTree:
    tree = SumTree(len(weights))
    tree.set(np.arange(len(weights)), weights)
    return tree


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, list[tuple[Array, Array]], int]:
    """A capacity, and weights for places, some of them named twice and some of weight 0; and a seed."""
    capacity = draw(st.integers(1, 200))
    place, weight = st.integers(0, capacity - 1), st.one_of(st.just(0.0), st.floats(1e-6, 1e6))
    several = st.lists(st.tuples(place, weight), min_size=1, max_size=40)
    made = [
        (np.array([place for place, _ in pairs]), np.array([weight for _, weight in pairs]))
        for pairs in draw(st.lists(several, min_size=1, max_size=5))
    ]
    return capacity, made, draw(st.integers(0, 2**32 - 1))


@property_test
@given(changes())
def test_it_is_a_list_of_weights_and_their_running_sums(made: tuple[int, list[tuple[Array, Array]], int]) -> None:
    capacity, all_changes, seed = made
    tree, weights, rng = SumTree(capacity), np.zeros(capacity), np.random.default_rng(seed)
    for places, values in all_changes:
        for place, value in zip(places, values, strict=True):  # of one that is named twice the last holds
            weights[place] = value
        tree.set(places, values)
        np.testing.assert_array_equal(tree.get(np.arange(capacity)), weights)
        assert tree.total == pytest.approx(weights.sum(), rel=1e-12)
        if not weights.any():
            continue
        shares, sums = rng.random(64), weights.cumsum()
        found, of_total = tree.find(shares)
        assert (weights[found] > 0).all()
        np.testing.assert_allclose(of_total, weights[found] / weights.sum(), rtol=1e-12)
        clear = np.abs(shares[:, None] * sums[-1] - sums).min(axis=1) > 1e-9 * sums[-1]  # of where two places meet
        np.testing.assert_array_equal(found[clear], np.searchsorted(sums, shares * sums[-1], side="right")[clear])


def test_setting_leaves_its_arguments_alone() -> None:
    places, weights = np.array([2, 0]), np.array([5.0, 3.0])
    SumTree(3).set(places, weights)
    assert (places.tolist(), weights.tolist()) == ([2, 0], [5.0, 3.0])


def test_by_hand() -> None:
    tree = tree_of(np.array([1.0, 0.0, 2.0, 5.0]))
    places, shares = tree.find(np.array([0.0, 0.124, 0.125, 0.374, 0.375, 0.999]))
    assert places.tolist() == [0, 0, 2, 2, 3, 3]
    assert shares.tolist() == [0.125, 0.125, 0.25, 0.25, 0.625, 0.625]
    assert (places.dtype, tree.total) == (np.int64, 8.0)


@pytest.mark.parametrize("capacity", [1, 2, 3, 100, 128, 129])
def test_the_ends_of_the_line_are_places_that_can_be_drawn(capacity: int) -> None:
    """Even a share of 1, to which the largest below it can be rounded, and where the last places weigh nothing."""
    weights = np.zeros(capacity)
    weights[: capacity // 2 + 1] = 0.1
    places, _ = tree_of(weights).find(np.array([0.0, np.nextafter(1, 0), 1.0]))
    assert places.tolist() == [0, capacity // 2, capacity // 2]


def test_what_rounding_leaves_over_is_never_a_place_without_weight() -> None:
    """Sums of tenths are no sums of floats: what is left at the bottom can be more than there is."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.choice([0.0, 0.1, 0.3, 1e-9], 37, p=[0.6, 0.2, 0.1, 0.1])
        weights[rng.integers(37)] = 0.7
        tree = tree_of(weights)
        edges = weights.cumsum() / weights.sum()
        shares = np.clip(np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1)]), 0, np.nextafter(1, 0))
        assert (weights[tree.find(shares)[0]] > 0).all()


@pytest.mark.parametrize("capacity", [1, 5])
def test_where_nothing_weighs_anything_nothing_is_found(capacity: int) -> None:
    with pytest.raises(ValueError, match="nothing can be found where all weights are 0"):
        SumTree(capacity).find(np.array([0.5]))


def test_places_are_found_as_often_as_they_weigh() -> None:
    weights, count = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 7.0], 50), 100_000
    places, _ = tree_of(weights).find(np.random.default_rng(2).random(count))
    observed, expected = np.bincount(places, minlength=50), count * weights / weights.sum()
    assert not observed[weights == 0].any()
    kept = weights > 0
    assert scipy.stats.chisquare(observed[kept], expected[kept]).pvalue > CERTAINLY_WRONG
