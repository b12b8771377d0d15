"""Pictures: planes, and frames that a batch keeps once."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from actors.errors import UserError
from actors.parts import Parts
from actors.pictures import Picture, pictures_in, pooled
from actors.spaces import Box
from actors.trees import rows
from tests.learner import property_test


@pytest.mark.parametrize(
    ("picture", "planes"),
    [
        (Picture((30, 45)), (1, 30, 45)),
        (Picture((30, 45, 3)), (3, 30, 45)),
        (Picture((3, 30, 45)), (3, 30, 45)),
        (Picture((4, 30, 45), 4), (4, 30, 45)),
        (Picture((4, 30, 45, 3), 4), (12, 30, 45)),
        (Picture((7, 7, 3)), (3, 7, 7)),
        (Picture((2, 2, 3)), (3, 2, 2)),
    ],
)
def test_planes_are_channels_first_frame_by_frame(picture: Picture, planes: tuple[int, int, int]) -> None:
    assert picture.planes == planes
    values = picture.sample(np.random.default_rng(0), 2)
    seen = picture.encode(values)
    assert seen.shape == (2, *planes)
    assert seen.dtype == np.uint8
    frames = values if picture.frames > 1 else values[:, None]
    if frames.ndim == 5 and frames.shape[-1] == 3:
        np.testing.assert_array_equal(seen[0, 3 * picture.frames - 1], frames[0, -1, :, :, 2])
    else:
        np.testing.assert_array_equal(seen.ravel(), frames.ravel())
    np.testing.assert_allclose(picture.numbers(values), seen.reshape(2, -1) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "frames", "said"),
    [((4,), 1, "2 or 3 dimensions"), ((3, 8, 8), 4, "4 frames do not make"), ((2, 2, 2, 2, 2), 2, "2 or 3 dimensions")],
)
def test_what_is_no_picture_is_refused(shape: tuple[int, ...], frames: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Picture(shape, frames)


@property_test
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), frames=st.integers(2, 4))
def test_stacks_are_what_was_seen(lengths: list[int], frames: int) -> None:
    picture = Picture((frames, 2, 3), frames)
    rng = np.random.default_rng(len(lengths))
    shown = [rng.integers(0, 256, (length + frames, 2, 3), np.uint8) for length in lengths]
    stacks = [np.lib.stride_tricks.sliding_window_view(one, frames, axis=0) for one in shown]
    seen = [np.moveaxis(one, -1, 1) for one in stacks]  # [length + 1, frames, 2, 3]
    steps, after = np.concatenate([one[:-1] for one in seen]), np.stack([one[-1] for one in seen])
    earlier = picture.earlier(np.stack([one[0] for one in seen]))
    kept = picture.newest(steps), picture.newest(after)
    whole, finals = picture.restored(*kept, earlier, np.array(lengths))
    np.testing.assert_array_equal(whole, steps)
    np.testing.assert_array_equal(finals, after)
    assert len(pooled(*kept, earlier, np.array(lengths))[0]) == sum(lengths) + frames * len(lengths)


def test_what_a_batch_keeps_is_a_copy() -> None:
    picture = Picture((2, 3, 3), 2)
    values = picture.sample(np.random.default_rng(0), 4)
    kept, earlier = picture.newest(values), picture.earlier(values)
    values[:] = 0
    assert kept.any()
    assert earlier.any()


def test_pictures_among_parts_are_named_by_their_path() -> None:
    eye = Picture((8, 8))
    parts = Parts({"a": Box((2,)), "b": Parts({"c": eye, "d": Box((1,))})})
    assert dict(pictures_in(parts)) == {"b.c": eye}
    assert dict(pictures_in(eye)) == {"": eye}
    assert not [*pictures_in(Box((2,)))]


def test_parts_keep_frames_once_beside_numbers() -> None:
    parts = Parts({"eye": Picture((2, 2, 2), 2), "speed": Box((1,))})
    column = parts.sample(np.random.default_rng(0), 3)
    assert parts.has_frames
    assert parts.newest(column)["eye"].shape == (3, 2, 2)
    np.testing.assert_array_equal(parts.newest(column)["speed"], column["speed"])
    assert {name: part.shape for name, part in parts.earlier(column).items()} == {"eye": (3, 1, 2, 2)}
    kept: Any = parts.newest(column)
    first = {name: part[:1] for name, part in parts.earlier(column).items()}
    steps, after = parts.restored(rows(kept, slice(2)), rows(kept, slice(2, 3)), first, np.array([2]))
    assert steps["eye"].shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(steps["eye"][0], column["eye"][0])
    np.testing.assert_array_equal(after["eye"][0], np.stack([kept["eye"][1], kept["eye"][2]]))
    np.testing.assert_array_equal(after["speed"], column["speed"][2:])


def test_a_value_that_is_no_picture_is_named() -> None:
    with pytest.raises(UserError, match="an observation of float64"):
        Picture((2, 2)).stack([np.zeros((2, 2))])
