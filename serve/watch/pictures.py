"""Pictures of environments that draw themselves, as a viewer's browser takes them."""

from __future__ import annotations

import base64
import io
import logging
import time
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

log = logging.getLogger("touchdown")

MOST_A_SECOND = 30
"""Pictures a second at most: an environment of more steps a second is drawn at some of them."""
_WIDEST = 800
"""Pixels of a picture's width at most: wider ones are made smaller."""
_QUALITY, _BEST = {"quality": 80}, {"quality": 95, "subsampling": 0}
"""Options of JPEG: as a rule (a CartPole is 8 kB, a walker 14), and for small pictures, which are scaled up."""
_SMALL = 320
"""Pixels of a picture's width up to which it is small."""


class Pictures:
    """What an environment draws of itself: JPEG, thirty times a second at most.

    Args:
        env: made with render mode rgb_array.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._env = env
        self._drawn_at = 0.0
        self.works = True
        """Whether it still draws: one that fails is not asked again."""

    def newest(self, at_once: bool = False) -> str | None:
        """The environment as it is now, JPEG in base64; None: the last one is too recent, or there are none.

        ``at_once``: however recent the last one is.
        """
        now = time.monotonic()
        if not self.works or (now - self._drawn_at < 0.9 / MOST_A_SECOND and not at_once):
            return None
        self._drawn_at = now
        try:
            return encoded(np.asarray(self._env.render()))
        except Exception as error:  # whatever an environment raises, or what it draws that is no picture
            log.warning("%s draws no pictures: %s", self._env, " ".join(str(error).split()))
            self.works = False
            return None


def encoded(pixels: np.ndarray[Any, Any]) -> str:
    """A picture [height, width, 3] uint8 as JPEG in base64, of 800 pixels' width at most.

    Raises:
        ValueError: it is none.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"render gives {pixels.dtype} of shape {list(pixels.shape)}, no picture")
    picture = Image.fromarray(pixels)
    if picture.width > _WIDEST:
        picture.thumbnail((_WIDEST, _WIDEST * picture.height // picture.width))
    file = io.BytesIO()
    picture.save(file, "JPEG", **(_BEST if picture.width <= _SMALL else _QUALITY))
    return base64.b64encode(file.getvalue()).decode()
