"""What a policy sees, as it is sent: every pixel, and each frame in its place."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Box, Space
from serve.watch.seen import View, seen, views_of

RNG = np.random.default_rng(0)


def pixels(text: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize(
    ("space", "frames", "axes"),
    [
        (Picture((4, 6)), 1, None),
        (Picture((4, 6, 1)), 1, (3,)),
        (Picture((3, 4, 6), frames=3), 3, None),
        (Picture((3, 4, 6, 1), frames=3), 3, (4,)),
        (Picture((2, 8, 6)), 2, None),
    ],
)
def test_gray_frames_stand_side_by_side(space: Picture, frames: int, axes: tuple[int, ...] | None) -> None:
    height, width = space.planes[1:]
    assert views_of(space) == [View("", width, height, frames, coloured=False)]
    values = space.sample(RNG, 1)
    (sent,) = seen(space, values)
    rows = (np.squeeze(values, axes) if axes else values).reshape(frames, height, width)
    np.testing.assert_array_equal(pixels(sent), np.concatenate([*rows], axis=1), strict=True)


def test_coloured_frames_too() -> None:
    last, first = Picture((2, 4, 6, 3), frames=2), Picture((2, 3, 4, 6), frames=2)
    values = last.sample(RNG, 1)
    for space, column in ((last, values), (first, np.moveaxis(values, -1, 2))):
        assert views_of(space) == [View("", 6, 4, 2, coloured=True)]
        (sent,) = seen(space, column)
        np.testing.assert_array_equal(pixels(sent), np.concatenate([*values[0]], axis=1), strict=True)


def test_pictures_among_parts_by_their_names() -> None:
    space = Parts({"eye": Picture((4, 6)), "speed": Box((1,)), "inner": Parts({"map": Picture((5, 5))})})
    values = space.sample(RNG, 1)
    assert [view.name for view in views_of(space)] == ["eye", "inner.map"]
    eye, chart = seen(space, values)
    np.testing.assert_array_equal(pixels(eye), values["eye"][0], strict=True)
    np.testing.assert_array_equal(pixels(chart), values["inner"]["map"][0], strict=True)


@pytest.mark.parametrize("space", [Box((3,)), Parts({"a": Box((1,))})])
def test_numbers_are_no_pictures(space: Space) -> None:
    assert views_of(space) == []
    assert seen(space, space.sample(RNG, 1)) == []
