"""n-step returns against arithmetic by hand and a plain loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.algorithms.returns import NStep, n_step
from tests.learner import property_test


def ahead(
    rewards: Sequence[float],
    lengths: Sequence[int],
    terminated: Sequence[bool],
    gamma: float,
    n: int,
    dtype: torch.dtype = torch.float64,
) -> NStep:
    ends = torch.tensor(np.cumsum(lengths) - 1)
    ended = torch.tensor(terminated, dtype=dtype)
    return n_step(torch.tensor(rewards, dtype=dtype), ends, ended, max(lengths), gamma, n)


# Four steps to a termination, two to a truncation, and one that a rollout's end cut; rewards 1, 2, 4, 8 | 16, 32 | 64
# and γ = ½. Rows 0 to 6 are of observations, 7, 8 and 9 of the final ones.
@pytest.mark.parametrize(
    ("n", "returns", "discounts", "rows"),
    [
        (1, [1, 2, 4, 8, 16, 32, 64], [0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5], [1, 2, 3, 7, 5, 8, 9]),
        # 1 + 1 + 1; 2 + 2 + 2; then 4 + 4 and 8, which end in the terminal state as 2 + 2 + 2 does; 16 + 16; 32; 64
        (3, [3, 6, 8, 8, 32, 32, 64], [0.125, 0, 0, 0, 0.25, 0.5, 0.5], [3, 7, 7, 7, 8, 8, 9]),
        (4, [4, 6, 8, 8, 32, 32, 64], [0, 0, 0, 0, 0.25, 0.5, 0.5], [7, 7, 7, 7, 8, 8, 9]),
        (100, [4, 6, 8, 8, 32, 32, 64], [0, 0, 0, 0, 0.25, 0.5, 0.5], [7, 7, 7, 7, 8, 8, 9]),
    ],
)
def test_three_segments_by_hand(n: int, returns: list[float], discounts: list[float], rows: list[int]) -> None:
    found = ahead([1, 2, 4, 8, 16, 32, 64], [4, 2, 1], [True, False, False], 0.5, n)
    assert found.returns.tolist() == returns
    assert found.discounts.tolist() == discounts
    assert found.rows.tolist() == rows


@property_test
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    n=st.integers(1, 12),
)
def test_it_is_the_loop(lengths: list[int], seed: int, gamma: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, terminated = rng.normal(size=sum(lengths)), rng.random(len(lengths)) < 0.5
    expected: list[tuple[float, float, int]] = []
    start = 0
    for segment, length in enumerate(lengths):
        for t in range(length):
            steps = min(n, length - t)
            total = sum(gamma**k * rewards[start + t + k] for k in range(steps))
            leaves = t + n >= length
            ends = leaves and terminated[segment]
            row = sum(lengths) + segment if leaves else start + t + n
            expected.append((total, 0.0 if ends else gamma**steps, row))
        start += length
    found = ahead(rewards.tolist(), lengths, terminated.tolist(), gamma, n)
    returns, discounts, rows = zip(*expected, strict=True)
    np.testing.assert_allclose(found.returns, returns, atol=1e-12)
    np.testing.assert_allclose(found.discounts, discounts, rtol=1e-12)
    assert found.rows.tolist() == list(rows)
    assert found.rows.dtype == torch.int64


@pytest.mark.parametrize("n", [1, 3])
def test_it_leaves_its_arguments_alone_and_keeps_their_type(n: int) -> None:
    rewards, ends, terminated = torch.tensor([1.0, 2, 3]), torch.tensor([2]), torch.ones(1)
    found = n_step(rewards, ends, terminated, 3, 0.9, n)
    assert (rewards.tolist(), ends.tolist(), terminated.tolist()) == ([1, 2, 3], [2], [1])
    assert (found.returns.dtype, found.discounts.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("rewards", "gamma"),
    [
        ([1.0, 1e8], 1.0),  # 1e8 + 1 is 1e8 in single precision, so that the first reward would be 0
        ((0.1 + np.random.default_rng(0).normal(size=10_000)).astype(np.float32).tolist(), 0.999),
    ],
    ids=["a large reward later", "a long segment"],
)
def test_what_comes_later_takes_no_digits_off_what_comes_now(rewards: list[float], gamma: float) -> None:
    found = ahead(rewards, [len(rewards)], [True], gamma, 1, torch.float32)
    np.testing.assert_allclose(found.returns, rewards, rtol=1e-5)
