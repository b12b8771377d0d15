"""Replay goes on from its state, whether it was full or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.errors import UserError
from learner.memory.replay import Priorities
from tests.learner.memory.replays import BY_ERROR, EITHER, drawn, held, make_replay, steps

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small minibatches more than it brings


@EITHER
@pytest.mark.parametrize("inserted", [7, 25], ids=["part full", "gone round"])
def test_it_goes_on_from_its_state(inserted: int, priorities: Priorities | None) -> None:
    first = make_replay(ratio=0.3, priorities=priorities)
    for step in range(inserted):
        first.add(steps(step, 1))
        for minibatch in drawn(first):
            first.told(minibatch["step"].float() + 0.5)
    second = make_replay(ratio=0.3, seed=9, priorities=priorities)
    second.load_state(first.state())
    second._generator.set_state(first._generator.get_state())
    assert (len(second), second.figures()) == (len(first), first.figures())
    ever = 0
    for step in range(inserted, inserted + 30):
        for memory in (first, second):
            memory.add(steps(step, 1))
        ours, theirs = drawn(first), drawn(second)
        ever += len(ours)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.keys() == other.keys()
            assert all(torch.equal(mine[name], other[name]) for name in mine)
        for memory, minibatches in ((first, ours), (second, theirs)):
            for minibatch in minibatches[-1:]:
                memory.told(minibatch["step"].float() + 0.5)
    assert ever in (9, 10)
    for name, array in first.state().items():
        np.testing.assert_array_equal(second.state()[name], array, err_msg=name)


@EITHER
def test_a_state_is_a_copy(priorities: Priorities | None) -> None:
    memory = make_replay(priorities=priorities)
    memory.add(steps(0, 10))
    state = memory.state()
    before = {name: array.copy() for name, array in state.items()}
    drawn(memory)
    memory.told(torch.full((4,), 9.0))
    memory.add(steps(10, 10))
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
    other = make_replay(priorities=priorities)
    other.load_state(state)
    other.add(steps(10, 10))
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)


@EITHER
def test_one_that_was_never_filled_has_a_state_too(priorities: Priorities | None) -> None:
    other = make_replay(priorities=priorities)
    other.load_state(make_replay(priorities=priorities).state())
    other.add(steps(0, 4))
    assert held(other) == [0, 1, 2, 3]


@EITHER
@pytest.mark.parametrize("capacity", [7, 20])
def test_one_of_another_size_cannot_hold_it(capacity: int, priorities: Priorities | None) -> None:
    """Places would be others, and so what is drawn."""
    other = make_replay(capacity=capacity, priorities=priorities)
    other.add(steps(0, 3))
    full = make_replay(capacity=10, priorities=priorities)
    full.add(steps(0, 8))
    with pytest.raises(UserError, match=rf"^the checkpoint's memory is of buffer_size 10, not {capacity}$"):
        other.load_state(full.state())
    assert held(other) == [0, 1, 2]


def test_what_had_no_priorities_cannot_be_drawn_by_them() -> None:
    uniform = make_replay()
    uniform.add(steps(0, 3))
    with pytest.raises(UserError, match=r"^the checkpoint's memory has no priorities: it was drawn from uniformly$"):
        make_replay(priorities=BY_ERROR).load_state(uniform.state())


@EITHER
def test_a_checkpoint_without_it_is_told_of(priorities: Priorities | None) -> None:
    memory = make_replay(priorities=priorities)
    memory.load_state({})
    assert memory.notes() == ["the checkpoint holds no replay memory: it is filled anew before anything is learned"]
    memory.add(steps(0, 3))
    assert held(memory) == [0, 1, 2]


@EITHER
def test_what_it_held_before_is_forgotten(priorities: Priorities | None) -> None:
    before, other = (make_replay(batch_size=40, priorities=priorities) for _ in range(2))
    before.add(steps(0, 10))
    other.add(steps(20, 3))
    before.load_state(other.state())
    before.add(steps(23, 1))
    for minibatch in drawn(before):
        assert set(minibatch["step"].tolist()) <= {20, 21, 22, 23}
