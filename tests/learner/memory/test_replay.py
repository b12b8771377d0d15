"""Replay: what it holds, how many minibatches it owes, and that it takes no more memory than at first."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import psutil
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.errors import UserError
from learner.memory.replay import Priorities
from tests.learner import property_test
from tests.learner.memory.replays import EITHER, drawn, held, make_replay, steps

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small minibatches more than it brings

CERTAINLY_WRONG = 1e-6
"""A p-value that a right sampler falls below once in a million seeds."""


@EITHER
def test_it_holds_the_last_steps(priorities: Priorities | None) -> None:
    memory, inserted = make_replay(priorities=priorities), 0
    for count in (3, 7, 1, 9, 25, 2, 10, 31):  # the fifth and the last are more than it can hold
        memory.add(steps(inserted, count))
        inserted += count
        assert len(memory) == min(inserted, 10)
        assert held(memory) == list(range(max(0, inserted - 10), inserted))
        for minibatch in drawn(memory):
            assert all(max(0, inserted - 10) <= step < inserted for step in minibatch["step"].tolist())


@EITHER
def test_columns_stay_together_in_their_own_types(priorities: Priorities | None) -> None:
    memory = make_replay(priorities=priorities)
    for first in range(0, 40, 8):
        memory.add(steps(first, 8))
        minibatches = drawn(memory)
        assert len(minibatches) == 8
        for minibatch in minibatches:
            expected = steps(0, 40)
            for name, column in expected.items():
                assert minibatch[name].dtype == column.dtype
                assert torch.equal(minibatch[name], column[minibatch["step"]])
            assert len(minibatch["step"]) == 4
            assert ("weights" in minibatch) == (priorities is not None)


def test_what_it_holds_is_a_copy() -> None:
    memory, batch = make_replay(), steps(0, 4)
    memory.add(batch)
    batch["step"].fill_(-1)
    assert held(memory) == [0, 1, 2, 3]


@EITHER
def test_many_minibatches_come_one_by_one(priorities: Priorities | None) -> None:
    """More than are gathered in one call, and none of them the one before."""
    memory = make_replay(capacity=200, batch_size=8, priorities=priorities)
    memory.add(steps(0, 50))
    minibatches = [tuple(minibatch["step"].tolist()) for minibatch in drawn(memory)]
    assert len(minibatches) == len(set(minibatches)) == 50


@property_test
@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=60),
    ratio=st.sampled_from([Fraction(1, 32), Fraction(1, 3), Fraction(3, 10), Fraction(1), Fraction(7, 3)]),
    learning_starts=st.sampled_from([0, 1, 50, 400]),
)
def test_the_ratio_of_minibatches_to_steps_is_held(counts: list[int], ratio: Fraction, learning_starts: int) -> None:
    """What is left of a minibatch is carried over; for what came before it may learn nothing is owed."""
    memory = make_replay(500, 2, float(ratio), learning_starts)
    inserted = counted = minibatches = 0
    for count in counts:
        memory.add(steps(inserted, count))
        inserted += count
        now = len(drawn(memory))
        if inserted >= learning_starts:
            counted += count
        else:
            assert now == 0
        minibatches += now
        assert minibatches == int(ratio * counted)


def test_the_ratio_is_held_over_a_long_run() -> None:
    memory, minibatches = make_replay(64, 1, 1 / 3), 0
    for _ in range(3_000):
        memory.add({"step": torch.zeros(1)})
        minibatches += len(drawn(memory))
    assert minibatches == 1_000
    assert memory.figures() == {"memory_size": 64, "samples_per_insert": 1 / 3}


def test_figures() -> None:
    memory = make_replay(batch_size=4, ratio=0.5, learning_starts=6)
    assert memory.figures() == {"memory_size": 0, "samples_per_insert": 0}
    memory.add(steps(0, 5))
    drawn(memory)
    assert memory.figures() == {"memory_size": 5, "samples_per_insert": 0}
    memory.add(steps(5, 15))
    assert len(drawn(memory)) == 7
    assert memory.figures() == {"memory_size": 10, "samples_per_insert": 7 * 4 / 20}


def test_an_empty_one_draws_nothing() -> None:
    assert drawn(make_replay(learning_starts=0)) == []


@EITHER
def test_a_seed_decides_what_is_drawn(priorities: Priorities | None) -> None:
    def draw(seed: int) -> Tensor:
        memory = make_replay(seed=seed, priorities=priorities)
        memory.add(steps(0, 30))
        return torch.cat([minibatch["step"] for minibatch in drawn(memory)])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_every_step_is_drawn_as_often() -> None:
    memory = make_replay(batch_size=50, ratio=2.0)
    memory.add(steps(0, 500))  # of which the last 10 are held
    places = torch.cat([minibatch["step"] for minibatch in drawn(memory)]) - 490
    assert scipy.stats.chisquare(np.bincount(places, minlength=10)).pvalue > CERTAINLY_WRONG


@EITHER
def test_a_full_one_stays_where_it_is_and_grows_no_more(priorities: Priorities | None) -> None:
    """A million steps through a memory of 20,000."""
    memory = make_replay(20_000, 32, 1 / 1000, priorities=priorities)
    batch = {"observations": torch.ones(2_000, 8), "actions": torch.ones(2_000, dtype=torch.int64)}

    def go_on(steps: int) -> None:
        for _ in range(steps // 2_000):
            memory.add(batch)
            for minibatch in drawn(memory):
                memory.told(torch.ones(len(minibatch["actions"])))

    go_on(40_000)
    columns = memory._columns
    places, before = [column.data_ptr() for column in columns.values()], psutil.Process().memory_info().rss
    go_on(1_000_000)
    assert memory._columns is columns
    assert [column.data_ptr() for column in columns.values()] == places
    assert psutil.Process().memory_info().rss - before < 8e6, "what came by was 40 MB"
    assert memory.figures() == {"memory_size": 20_000, "samples_per_insert": 0.032}


def test_one_that_does_not_fit_is_refused_in_one_line() -> None:
    memory = make_replay(capacity=10**12)
    with pytest.raises(UserError, match=r"^buffer_size is too large .* 1,000,000,000,000 steps of 17 bytes: ") as error:
        memory.add(steps(0, 4))
    assert "\n" not in str(error.value)
    assert "17,000,000 MB, and " in str(error.value)
    would_fit = int(str(error.value).rpartition("; ")[2].removesuffix(" would fit").replace(",", ""))
    assert 0 < 17 * would_fit < psutil.virtual_memory().total


def test_its_size_is_told_once() -> None:
    memory = make_replay(capacity=1_000_000)
    assert memory.notes() == []
    memory.add(steps(0, 4))
    memory.add(steps(4, 4))
    assert memory.notes() == ["replay memory of 1,000,000 steps of 17 bytes: 17 MB"]
    memory.add(steps(8, 4))
    assert memory.notes() == []
