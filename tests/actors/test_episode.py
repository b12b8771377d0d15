import dataclasses
import itertools
import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError
from actors.trees import leaves, map_leaves
from tests.actors.examples import assert_same_batches

COLUMNS = [field.name for field in dataclasses.fields(EpisodeBatch)]
FLOWN, TERMINATED, TRUNCATED = range(3)


def make_columns(
    lengths: list[int], ends: list[int], observation_shape: tuple[int, ...] = (3,), continuous: bool = False
) -> dict[str, Any]:
    """Columns full of different numbers, for segments of these lengths that end in these ways."""
    rng = np.random.default_rng(len(lengths))
    steps, segments = sum(lengths), len(lengths)
    finished = sum(end != FLOWN for end in ends)
    return {
        "observations": rng.standard_normal((steps, *observation_shape), dtype=np.float32),
        "actions": rng.standard_normal((steps, 2), dtype=np.float32) if continuous else rng.integers(0, 9, steps),
        "rewards": rng.standard_normal(steps, dtype=np.float32),
        "notes": {
            "log_prob": rng.standard_normal(steps, dtype=np.float32),
            "q": rng.standard_normal((steps, 3), dtype=np.float32),
        },
        "segment_lengths": np.array(lengths, np.int32),
        "final_observations": rng.standard_normal((segments, *observation_shape), dtype=np.float32),
        "earlier": {"eye": rng.integers(0, 256, (segments, 3, 2, 2), np.uint8)},
        "memories": {"state": rng.standard_normal((segments, 4), dtype=np.float32)},
        "terminated": np.array([end == TERMINATED for end in ends], bool),
        "truncated": np.array([end == TRUNCATED for end in ends], bool),
        "policy_version": rng.integers(0, 100, segments),
        "episode_returns": rng.standard_normal(finished),
        "episode_lengths": rng.integers(1, 100, finished),
    }


@st.composite
def batches(draw: st.DrawFn, min_segments: int = 1) -> EpisodeBatch:
    segments = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=min_segments, max_size=8))
    shape = draw(st.sampled_from([(3,), (2, 2), ()]))
    columns = make_columns([length for length, _ in segments], [end for _, end in segments], shape, draw(st.booleans()))
    return EpisodeBatch(**columns)


@settings(deadline=None, derandomize=True)
@given(batch=batches(), data=st.data())
def test_pieces_join_to_the_whole(batch: EpisodeBatch, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, batch.num_segments), max_size=4)))
    bounds = [0, *cuts, batch.num_segments]
    pieces = [batch.segments(start, stop) for start, stop in itertools.pairwise(bounds)]
    assert_same_batches(EpisodeBatch.concatenate(pieces), batch)


@settings(deadline=None, derandomize=True)
@given(batch=batches())
def test_a_whole_splits_into_what_was_joined(batch: EpisodeBatch) -> None:
    joined = EpisodeBatch.concatenate([batch, batch])
    assert joined.num_steps == 2 * batch.num_steps
    assert joined.num_segments == 2 * batch.num_segments
    assert_same_batches(joined.segments(0, batch.num_segments), batch)
    assert_same_batches(joined.segments(batch.num_segments, joined.num_segments), batch)


def test_segments_hold_their_own_steps_and_episodes() -> None:
    columns = make_columns([2, 3, 1], [TERMINATED, FLOWN, TRUNCATED])
    piece = EpisodeBatch(**columns).segments(1, 3)
    np.testing.assert_array_equal(piece.rewards, columns["rewards"][2:])
    np.testing.assert_array_equal(piece.final_observations, columns["final_observations"][1:])
    np.testing.assert_array_equal(piece.episode_returns, columns["episode_returns"][1:])


def test_segments_are_contiguous_views() -> None:
    batch = EpisodeBatch(**make_columns([2, 3, 1], [TERMINATED, FLOWN, TRUNCATED]))
    piece = batch.segments(1, 3)
    for (name, mine), (_, whole) in zip(leaves(vars(piece)), leaves(vars(batch)), strict=True):
        assert np.shares_memory(mine, whole), name
        assert mine.flags.c_contiguous, name


def test_pickle_moves_every_column_without_a_copy() -> None:
    batch = EpisodeBatch(**make_columns([2, 3, 1], [TERMINATED, FLOWN, TRUNCATED]))
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    columns = list(leaves(vars(batch)))
    assert len(buffers) == len(columns)
    twin = pickle.loads(data, buffers=buffers)
    assert_same_batches(twin, batch)
    assert all(
        np.shares_memory(leaf, column) for (_, leaf), (_, column) in zip(leaves(vars(twin)), columns, strict=True)
    )
    assert_same_batches(pickle.loads(pickle.dumps(batch, protocol=5)), batch)


def broken(**changes: Array) -> dict[str, Any]:
    return make_columns([2, 3, 1], [TERMINATED, FLOWN, TRUNCATED]) | changes


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_row_is_refused(name: str) -> None:
    columns = broken()
    columns[name] = map_leaves(lambda leaf: leaf[1:], columns[name])
    # The rewards say how many steps there are and the segment lengths how many segments: the others disagree with them.
    named = {"rewards": "observations", "segment_lengths": "final_observations"}.get(name, name)
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        EpisodeBatch(**columns)


@pytest.mark.parametrize("lengths", [[2, 3, 2], [2, 3, 0], [6, 0, 0], [3, 4, -1]])
def test_segments_that_do_not_cover_the_steps_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="segment_lengths"):
        EpisodeBatch(**broken(segment_lengths=np.array(lengths, np.int32)))


def test_final_observations_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="final_observations"):
        EpisodeBatch(**broken(final_observations=np.zeros((3, 4), np.float32)))


@pytest.mark.parametrize("name", ["rewards", "segment_lengths", "terminated", "truncated"])
def test_a_column_of_too_many_dimensions_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EpisodeBatch(**broken(**{name: broken()[name][:, None]}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["observations", "actions", "rewards", "notes.q", "final_observations", "memories.state"]
)
def test_a_number_that_is_none_is_refused(name: str, value: float) -> None:
    columns = make_columns([2, 3, 1], [TERMINATED, FLOWN, TRUNCATED], continuous=True)
    dict(leaves(columns))[name].flat[-1] = value
    with pytest.raises(NonFiniteError, match=rf"^{re.escape(name)} "):
        EpisodeBatch(**columns)
