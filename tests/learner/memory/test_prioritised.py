"""Prioritised drawing: shares and weights by hand, and what a learner tells of its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from actors.trees import Array
from learner.memory.memory import Columns
from learner.memory.replay import Priorities, Replay

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small minibatches more than it brings

CERTAINLY_WRONG = 1e-6
"""A p-value that a right sampler falls below once in a million seeds."""


def priorities(alpha: float = 1.0, beta: float = 0.4, beta_steps: int = 100, floor: float = 0.0) -> Priorities:
    return Priorities(alpha, beta, beta_steps, floor)


def make_replay(by: Priorities, batch_size: int = 4, ratio: float = 0.25, capacity: int = 4) -> Replay:
    return Replay(capacity, batch_size, ratio, 1, torch.Generator().manual_seed(0), by)


def numbered(first: int, count: int) -> Columns:
    return {"step": torch.arange(first, first + count)}


def drawn(memory: Replay) -> Iterator[Columns]:
    """Minibatches, drawn as they are asked for."""
    for minibatches in memory.draw():
        yield from minibatches


def told(by: Priorities, errors: Sequence[float], then: int = 0, capacity: int = 0) -> tuple[Replay, Iterator[Columns]]:
    """A memory that knows of these errors of its steps, and minibatches of as many steps that it owes."""
    count = len(errors)
    memory = make_replay(by, count, (1 + then) / count, capacity or count)
    memory.add(numbered(0, count))
    minibatches = drawn(memory)
    assert next(minibatches)["step"].tolist() == list(range(count)), "equal steps are drawn once each"
    memory.told(torch.tensor(errors))
    return memory, minibatches


def held(memory: Replay) -> Array:
    return memory.state()["priorities"]


def test_a_step_is_drawn_by_its_error_to_the_power_of_alpha() -> None:
    memory, _ = told(priorities(alpha=0.5, floor=0.01), [0, 1, 4, 9])
    np.testing.assert_allclose(held(memory), np.sqrt([0.01, 1.01, 4.01, 9.01]), rtol=1e-6)


def test_steps_without_an_error_can_still_be_drawn() -> None:
    memory, minibatches = told(Priorities(alpha=1.0, beta=0.4, beta_steps=100), [0] * 4, then=1)
    np.testing.assert_allclose(held(memory), [1e-6] * 4, rtol=1e-6)
    assert next(minibatches)["step"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("errors", "largest"), [([0.25, 0.04, 0.01, 0.09], 0.5), ([0.25, 16, 0.01, 0.09], 4)])
def test_new_steps_get_the_largest_priority_so_far(errors: list[float], largest: float) -> None:
    memory, _ = told(priorities(alpha=0.5), errors, capacity=6)
    memory.add(numbered(4, 3))  # the last over the first of all
    np.testing.assert_allclose(held(memory), [largest, *np.sqrt(errors[1:]), largest, largest], rtol=1e-6)


def test_what_was_the_largest_priority_once_remains_so() -> None:
    memory, minibatches = told(priorities(), [5, 5, 5, 5], then=1, capacity=5)
    next(minibatches)
    memory.told(torch.ones(4))
    memory.add(numbered(4, 1))
    assert held(memory).tolist() == [1, 1, 1, 1, 5]


def test_only_what_was_drawn_last_is_told_of() -> None:
    memory = make_replay(priorities(), ratio=0.1, capacity=100)
    memory.add(numbered(0, 30))
    steps = [minibatch["step"].tolist() for minibatch in drawn(memory)]
    memory.told(torch.full((4,), 7.0))
    assert set(steps[0]) != set(steps[2])
    assert np.flatnonzero(held(memory) == 7).tolist() == sorted(steps[2])
    assert np.count_nonzero(held(memory) == 1) == 26


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_frequencies_are_the_priorities(alpha: float) -> None:
    errors = np.array([0.1, 5.0, 1.0, 0.5, 2.5])
    _, minibatches = told(priorities(alpha=alpha), errors.tolist(), then=3_000)
    places = torch.cat([minibatch["step"] for minibatch in minibatches])
    expected = 15_000 * errors**alpha / (errors**alpha).sum()
    # Of five parts of the sum one each, so that it varies less than chance would have it.
    assert scipy.stats.chisquare(np.bincount(places, minlength=5), expected).pvalue > CERTAINLY_WRONG


def test_a_minibatch_has_a_step_of_each_part_of_the_sum() -> None:
    _, minibatches = told(priorities(), [1, 1, 2, 4, 4, 4, 8, 8], then=20)  # 4 are an eighth
    for minibatch in minibatches:
        first, *others = minibatch["step"].tolist()
        assert first in (0, 1, 2)
        assert others == [3, 4, 5, 6, 6, 7, 7]


def test_weights_by_hand() -> None:
    """β = ½; P = 1/8, 1/8, 1/4, 1/2, so that (4 P)^−½ = √2, √2, 1, √½; over the largest, √2 where it was drawn."""
    _, minibatches = told(priorities(beta=0.5, beta_steps=10**9), [1, 1, 2, 4], then=20)
    for minibatch in minibatches:
        assert minibatch["step"].tolist()[1:] == [2, 3, 3]
        torch.testing.assert_close(minibatch["weights"], torch.tensor([1, 0.5**0.5, 0.5, 0.5]))


def test_weights_are_over_the_largest_of_their_minibatch() -> None:
    errors = torch.tensor([1e-9, 1.0, 3.0, 4.0])
    _, minibatches = told(priorities(beta=1.0), errors.tolist(), then=200)
    for minibatch in minibatches:
        expected = 1 / errors[minibatch["step"]]
        torch.testing.assert_close(minibatch["weights"], expected / expected.max())


@pytest.mark.parametrize(("taken_in", "beta"), [(4, 0.4 + 0.6 * 4 / 40), (20, 0.7), (40, 1.0), (92, 1.0)])
def test_beta_rises_to_one_with_the_steps_that_come_in(taken_in: int, beta: float) -> None:
    memory = make_replay(priorities(beta=0.4, beta_steps=40))
    for first in range(0, taken_in, 4):
        memory.add(numbered(first, 4))
    memory.load_state({**memory.state(), "priorities": np.array([1.0, 1, 2, 4])})
    for minibatch in drawn(memory):
        weights = torch.tensor([8.0, 8, 4, 2])[minibatch["step"] % 4] ** beta
        torch.testing.assert_close(minibatch["weights"], weights / weights.max())
        assert minibatch["weights"][-1] < 1


def test_uniform_drawing_heeds_no_errors() -> None:
    def draw(errors: float) -> Tensor:
        memory = Replay(4, 4, 1.0, 1, torch.Generator().manual_seed(0))
        seen = []
        for first in range(0, 40, 4):
            memory.add(numbered(first, 4))
            for minibatch in drawn(memory):
                memory.told(torch.linspace(0, errors, 4))
                seen.append(minibatch["step"])
        return torch.cat(seen)

    assert torch.equal(draw(0.0), draw(100.0))
