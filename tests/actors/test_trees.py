"""Nested dictionaries of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actors.trees import concatenate, leaves, length, map_leaves, put, rows

TREE: dict[str, Any] = {"a": np.arange(2), "b": {"c": np.arange(6).reshape(2, 3), "d": {}}}


def test_leaves_are_named_by_their_place() -> None:
    assert [name for name, _ in leaves(TREE)] == ["a", "b.c"]
    assert [name for name, _ in leaves(TREE, "x")] == ["x.a", "x.b.c"]
    assert [name for name, _ in leaves(np.zeros(1), "x")] == ["x"]


def test_a_function_of_leaves_in_the_same_place() -> None:
    doubled = map_leaves(np.add, TREE, TREE)
    np.testing.assert_array_equal(doubled["b"]["c"], 2 * TREE["b"]["c"])
    assert doubled["b"]["d"] == {}
    assert map_leaves(np.sum, np.arange(3)) == 3


def test_rows_are_taken_and_put() -> None:
    tree = map_leaves(np.copy, TREE)
    index = np.array([1])
    assert rows(tree, index)["b"]["c"].tolist() == [[3, 4, 5]]
    put(tree, index, {"a": np.array([7]), "b": {"c": np.array([[9, 9, 9]]), "d": {}}})
    assert tree["a"].tolist() == [0, 7]
    assert tree["b"]["c"].tolist() == [[0, 1, 2], [9, 9, 9]]
    assert length(tree) == 2


def test_leaves_are_laid_end_to_end() -> None:
    joined = concatenate([TREE, TREE, TREE])
    np.testing.assert_array_equal(joined["a"], [0, 1, 0, 1, 0, 1])
    assert joined["b"]["c"].shape == (6, 3)


@pytest.mark.parametrize("other", [{"a": TREE["a"]}, {**TREE, "b": TREE["a"]}, {**TREE, "b": {"c": TREE["a"]}}])
def test_trees_of_other_names_are_refused(other: Any) -> None:
    with pytest.raises(ValueError, match=r"trees differ: .* in one, .* in another"):
        map_leaves(np.add, TREE, other)
