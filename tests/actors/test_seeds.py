from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import UserError
from actors.seeds import check_seeds, derive, sub_seed


@settings(derandomize=True, deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31 - 1), key=st.lists(st.integers(0, 2**40), max_size=3))
def test_derived_seeds_fit_31_bits_with_room_to_count_up(seed: int, key: list[int]) -> None:
    derived = derive(sub_seed(seed, *key), 50)
    assert derived == derive(sub_seed(seed, *key), 50)
    assert derived[:20] == derive(sub_seed(seed, *key), 20)
    assert all(2**20 <= one < 2**31 - 2**20 for one in derived)


def test_parts_are_independent() -> None:
    """Neighbouring runs, tickets, actors and slots, and parts of parts, share no seed and look random."""
    keys = [(run, *key) for run in range(4) for key in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0))]
    derived = np.array([derive(sub_seed(*key), 64) for key in keys], np.float64)
    assert len(np.unique(derived)) == derived.size
    assert np.abs(np.corrcoef(derived) - np.eye(len(keys))).max() < 0.6  # of 64 numbers each, 496 pairs
    assert abs(derived.mean() / 2**30 - 1) < 0.05


def test_a_part_of_a_part_is_named_by_both() -> None:
    assert derive(sub_seed(sub_seed(3, 1), 2), 2) == derive(sub_seed(3, 1, 2), 2)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 100), (2**31 - 1, 1), (2**31 - 100, 100)])
def test_seeds_of_31_bits_are_taken(first: int, count: int) -> None:
    check_seeds(first, count)


@pytest.mark.parametrize(
    ("first", "count", "message"),
    [
        (-1, 1, "seed must be zero or more and below 2**31, not -1"),
        (2**31, 1, "seed must be zero or more and below 2**31, not 2147483648"),
        (2**31 - 99, 100, "seed must be zero or more and at most 2147483548 for 100 episodes, not 2147483549"),
    ],
)
def test_others_are_refused_in_one_line(first: int, count: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_seeds(first, count)
    assert str(caught.value) == message
