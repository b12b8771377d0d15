"""Pictures as observations: bytes, of which a batch keeps each frame once however many are seen together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from actors.errors import UserError
from actors.parts import Parts
from actors.spaces import Space, check_sizes
from actors.trees import Array

_MOST_CHANNELS = 4
"""As many numbers has a pixel at most: red, green, blue and how opaque."""


@dataclasses.dataclass(frozen=True)
class Picture(Space):
    """A picture of bytes, [H, W], [H, W, C] or [C, H, W], or the last ``frames`` of them, the oldest first.

    Of several a batch holds the newest of each step, and the earlier ones where a segment begins.

    Raises:
        UserError: sizes that no picture has.
    """

    shape: tuple[int, ...]
    """The shape of one value; where it holds several frames the first axis counts them."""
    frames: int = 1
    """Pictures that a value holds; 1: a value is a picture."""
    kind: Literal["picture"] = "picture"
    dtype = "uint8"

    def __post_init__(self) -> None:
        check_sizes(self.shape)
        if self.frames < 1 or (self.frames > 1 and self.shape[:1] != (self.frames,)):
            raise UserError(f"{self.frames} frames do not make a picture of shape {self.shape}")
        if len(self._frame) not in (2, 3):
            raise UserError(f"a picture must be of 2 or 3 dimensions, not {self._frame}")

    @property
    def _frame(self) -> tuple[int, ...]:
        """The shape of one frame."""
        return self.shape[1:] if self.frames > 1 else self.shape

    @property
    def has_channels_last(self) -> bool:
        """Whether a frame's numbers of one pixel stand together."""
        return len(self._frame) == 3 and self._frame[-1] <= max(_MOST_CHANNELS, self._frame[0] - 1)

    @property
    def planes(self) -> tuple[int, int, int]:
        """(C, H, W): what a convolution sees; the channels of all frames, one frame after another."""
        frame = self._frame
        channels, *size = (1, *frame) if len(frame) == 2 else frame
        if self.has_channels_last:
            channels, size = frame[-1], [*frame[:2]]
        return self.frames * channels, size[0], size[1]

    @property
    def inputs(self) -> int:
        """As many numbers as a value has."""
        return math.prod(self.shape)

    def encode(self, values: Array) -> Array:
        """Values as convolutions take them: [B, *planes] uint8."""
        return np.ascontiguousarray(self._channels_first(values).reshape(len(values), *self.planes))

    def _channels_first(self, values: Array) -> Array:
        return np.moveaxis(values, -1, -3) if self.has_channels_last else values

    def frame_planes(self, values: Array) -> Array:
        """The planes of each frame, in a row: [B, k, H · W · C] of values of k frames, of one [B, 1, H · W · C]."""
        frames = self._channels_first(values)
        return frames.reshape(len(values), -1, self.inputs // self.frames)

    def numbers(self, values: Array) -> Array:
        """Planes from 0 to 1, in a row: [B, inputs] float32."""
        return self.encode(values).reshape(len(values), -1) / np.float32(255)

    def project(self, values: Array, weights: Array) -> Array:
        """``numbers(values) @ weights``."""
        return np.asarray(self.numbers(values) @ weights)

    @property
    def has_frames(self) -> bool:  # type: ignore[override]
        """Whether a value is of several frames."""
        return self.frames > 1

    def newest(self, values: Array) -> Array:
        """A copy of the last frame of each: [B, *frame]."""
        return np.array(values[:, -1] if self.has_frames else values, np.uint8)

    def earlier(self, values: Array) -> Any:
        """A copy of the frames before it: [B, frames - 1, *frame]; nothing where there is one."""
        return np.array(values[:, :-1], np.uint8) if self.has_frames else {}

    def restored(self, newest: Array, final: Array, earlier: Any, lengths: Array) -> tuple[Array, Array]:
        """Whole values of steps, [T, *shape], and of what comes after each segment, [E, *shape]."""
        if not self.has_frames:
            return newest, final
        pool, places, final_places = pooled(newest, final, earlier, lengths)
        window = np.arange(1 - self.frames, 1)
        return pool[places[:, None] + window], pool[final_places[:, None] + window]

    def pooled(self, newest: Any, final: Any, earlier: Any, lengths: Array) -> tuple[Array, Array, Array]:
        """All frames of a batch, each once, [P, C, H, W]; and places in them, [T] and [E]: see ``pooled``."""
        if not self.has_frames:
            earlier = np.empty((len(final), 0, *self.shape), np.uint8)
        frames, *places = pooled(newest, final, earlier, lengths)
        channels, height, width = self.planes
        frames = self._channels_first(frames).reshape(len(frames), channels // self.frames, height, width)
        return np.ascontiguousarray(frames), places[0], places[1]

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform bytes."""
        return rng.integers(0, 256, (count, *self.shape), np.uint8)

    def outside(self, values: Array) -> Array:
        """Which numbers are no bytes."""
        if values.dtype == np.uint8:
            return np.zeros(1, bool)
        return np.asarray((values < 0) | (values > 255))

    def in_words(self) -> str:
        """The shape of a value, for a person."""
        return f"{' × '.join(map(str, self.shape))} whole numbers from 0 to 255"


def pooled(newest: Array, final: Array, earlier: Array, lengths: Array) -> tuple[Array, Array, Array]:
    """All frames of a batch in the order in which they were seen, segment by segment, each once.

    Args:
        newest: [T, *frame]: the last frame of each step.
        final: [E, *frame]: the one after each segment's last step.
        earlier: [E, k - 1, *frame]: those before each segment's first step.
        lengths: [E]: steps of each segment.

    Returns:
        The frames [T + E · k, *frame]; where those of steps are among them [T], and those after segments [E]. What was
        seen at a place are the frames from k - 1 before it up to it.
    """
    before = earlier.shape[1]
    ends = np.cumsum(lengths + before + 1)
    starts = ends - lengths - before - 1
    first_steps = np.cumsum(lengths) - lengths
    places = np.arange(len(newest)) + np.repeat(starts + before - first_steps, lengths)
    pool = np.empty((int(ends[-1]), *newest.shape[1:]), newest.dtype)
    pool[places], pool[ends - 1], pool[starts[:, None] + np.arange(before)] = newest, final, earlier
    return pool, places, ends - 1


def pictures_in(space: Space) -> Iterator[tuple[str, Picture]]:
    """The pictures of a space, each with the name of its part, dots between names; the space's own is empty."""
    if isinstance(space, Picture):
        yield "", space
    elif isinstance(space, Parts):
        for name, part in space.spaces.items():
            yield from ((f"{name}.{inner}" if inner else name, picture) for inner, picture in pictures_in(part))
