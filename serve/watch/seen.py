"""The pictures that a policy sees, as a viewer's browser takes them: to the pixel."""

from __future__ import annotations

import base64
import io
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from actors.pictures import Picture, pictures_in
from actors.spaces import Space
from actors.trees import Array, leaves

_COLOURS = 3


class View(msgspec.Struct, frozen=True):
    """A picture of a policy's observations, sent as one: its frames side by side, the newest last."""

    name: str
    """The name of the part of the observation that the picture is; empty: it is all of it."""
    width: int
    """The width of a frame, in pixels."""
    height: int
    frames: int
    """How many frames it has; each channel is one where channels are not red, green and blue."""
    coloured: bool


def views_of(space: Space) -> list[View]:
    """The pictures of an observation."""
    views = []
    for name, picture in pictures_in(space):
        channels, height, width = picture.planes
        coloured = channels == _COLOURS * picture.frames
        views.append(View(name, width, height, channels // _COLOURS if coloured else channels, coloured))
    return views


def seen(space: Space, observation: Any) -> list[str]:
    """The pictures of one observation, a column of one row, each a PNG in base64."""
    columns = dict(leaves(observation))
    return [_png(picture, columns[name]) for name, picture in pictures_in(space)]


def _png(picture: Picture, column: Array) -> str:
    planes = picture.encode(column)[0]
    channels = len(planes) // picture.frames
    if channels == _COLOURS:
        pixels = np.concatenate([*np.moveaxis(planes.reshape(-1, _COLOURS, *planes.shape[1:]), 1, -1)], axis=1)
    else:
        pixels = np.concatenate([*planes], axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
