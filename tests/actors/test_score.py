import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.episode import Array
from actors.score import Score

SEEDS = range(100, 140)
LENGTHS = np.arange(len(SEEDS))


def land(score: Score, part: range, returns: Array) -> None:
    score.add(
        part, returns[part.start : part.stop], LENGTHS[part.start : part.stop], LENGTHS[part.start : part.stop] > 9
    )


@settings(derandomize=True, deadline=None)
@given(actors=st.integers(1, 60), seed=st.integers(0, 2**16))
def test_every_seed_is_flown_once_whoever_dies_and_whoever_is_down_first(actors: int, seed: int) -> None:
    score, returns, in_air = Score("policy", 3, SEEDS, actors), np.arange(40.0), []
    order = random.Random(seed)
    flown: list[int] = []
    while score.has_parts or in_air:
        assert not score.is_complete
        if score.has_parts and (not in_air or order.random() < 0.5):
            in_air.append(score.next_part())
            continue
        part = in_air.pop(order.randrange(len(in_air)))
        if order.random() < 0.3:
            score.put_back(part)
        else:
            flown.extend(part)
            land(score, part, returns)
    assert sorted(flown) == list(range(40))
    assert score.is_complete
    for column, expected in zip(score.flown, (returns, LENGTHS, LENGTHS > 9), strict=True):
        np.testing.assert_array_equal(column, expected)


def test_an_evaluation_that_cannot_reach_what_is_needed_is_given_up() -> None:
    hopeless = np.tile([90.0, 110.0], 20)
    score = Score("policy", 0, SEEDS, 1, needed=120.0)
    land(score, score.next_part(), hopeless)
    assert score.has_parts  # too few to tell
    land(score, score.next_part(), hopeless)
    assert not score.has_parts
    assert not score.is_complete
    assert len(score.flown[0]) == 16


def test_one_that_may_reach_it_is_flown_to_the_end() -> None:
    wide = np.tile([0.0, 220.0], 20)  # 110 ± 35 after ten, two standard errors
    score = Score("policy", 0, SEEDS, 1, needed=120.0)
    while score.has_parts:
        land(score, score.next_part(), wide)
    assert score.is_complete


def test_crashes_that_are_down_first_decide_nothing() -> None:
    returns = np.where(np.arange(40) < 24, 250.0, -100.0)
    score = Score("policy", 0, SEEDS, 1, needed=200.0)
    parts = [score.next_part() for _ in range(4)]
    for part in reversed(parts[1:]):
        land(score, part, np.full(40, -100.0))
    assert score.has_parts
    land(score, parts[0], returns)
    assert not score.has_parts
