"""Trunks: the convolutions through which a network sees pictures, as plain text that travels in a policy's file.

``32x8/4 64x4/2 64x3/1`` are three convolutions of 32, 64 and 64 filters of 8 × 8, 4 × 4 and 3 × 3 pixels at strides 4,
2 and 1, without padding, each followed by a rectifier. ``r16`` is a residual section of 16 filters: a convolution of
3 × 3, a maximum over 3 × 3 at stride 2, both padded, and two residual blocks of two rectified convolutions each; a
rectifier follows the last section (Espeholt et al. 2018, arXiv:1802.01561, figure 3).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

from actors.errors import UserError, unknown
from actors.imports import import_named
from actors.pictures import pictures_in
from actors.spaces import Space

MLP, AUTO = "mlp", "auto"
TRUNKS = {
    MLP: "",
    "small": "16x8/4 32x4/2",
    "nature": "32x8/4 64x4/2 64x3/1",
    "impala": "r16 r32 r32",
}
"""Trunks by name: none; Mnih et al. 2013 (arXiv:1312.5602); Mnih et al. 2015; Espeholt et al. 2018."""

RESIDUAL_CONVOLUTIONS = 4
"""In a residual section, beside its first."""
_LAYER = re.compile(r"([1-9]\d{0,3})x([1-9]\d?)(?:/([1-9]\d?))?|r([1-9]\d{0,3})")
_MOST_LAYERS = 16
_MOST_LETTERS = 200
_LARGE = 64
"""Pixels of the shorter side from which three convolutions are chosen."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with its rectifier, or a residual section."""

    filters: int
    kernel: int = 3
    stride: int = 1
    is_residual: bool = False

    def size(self, pixels: int) -> int:
        """Pixels that it makes of so many, along one side; 0 or less: its kernel is larger."""
        if self.is_residual:
            return (pixels + 1) // 2
        return (pixels - self.kernel) // self.stride + 1


@functools.cache
def read_trunk(text: str) -> tuple[Layer, ...]:
    """The layers that a text stands for.

    Raises:
        UserError: it stands for none.
    """
    if len(text) > _MOST_LETTERS:
        raise UserError(f"a trunk is written in {_MOST_LETTERS} letters at most, not {len(text)}")
    layers = []
    for word in text.split():
        found = _LAYER.fullmatch(word)
        if not found:
            raise UserError(
                f"{word[:50]!r} is no layer of a trunk: 32x8/4 is a convolution of 32 filters of 8 × 8 pixels at "
                "stride 4, and r16 a residual section of 16"
            )
        filters, kernel, stride, residual = found.groups()
        layers.append(
            Layer(int(residual), is_residual=True) if residual else Layer(int(filters), int(kernel), int(stride or 1))
        )
    if len(layers) > _MOST_LAYERS:
        raise UserError(f"a trunk has {_MOST_LAYERS} layers at most, not {len(layers)}")
    return tuple(layers)


def find_trunk(network: str, seen: Space) -> str:
    """The trunk that a network's name stands for, where such observations are seen.

    Args:
        network: a name in TRUNKS, a trunk itself, ``package.module:NAME`` of one; or auto: nature for pictures of 64
            pixels and more, small for others that it fits, mlp where there is none.
        seen: what a policy sees.

    Raises:
        UserError: there is none of that name, or it does not fit.
    """
    if network == AUTO:
        sides = [min(picture.planes[1:]) for _, picture in pictures_in(seen)]
        if not sides or not _fits(TRUNKS["small"], seen):
            return ""
        return TRUNKS["nature" if min(sides) >= _LARGE else "small"]
    if network in TRUNKS:
        trunk = TRUNKS[network]
    elif ":" in network:
        module, _, name = network.rpartition(":")
        trunk = import_named("network", module, name)
        if not isinstance(trunk, str):
            raise UserError(f"network {network} must be the text of a trunk, not {type(trunk).__name__}")
    elif _LAYER.fullmatch(network.partition(" ")[0]):
        trunk = network
    else:
        raise unknown("network", network, [AUTO, *TRUNKS])
    features_of(seen, trunk)
    return trunk


def _fits(trunk: str, seen: Space) -> bool:
    try:
        features_of(seen, trunk)
    except UserError:
        return False
    return True


def features_of(seen: Space, trunk: str) -> int:
    """How many numbers the layers after it see of an observation.

    Raises:
        UserError: a picture is too small for it.
    """
    if not trunk:
        return seen.inputs
    pictures = [picture for _, picture in pictures_in(seen)]
    others = seen.inputs - sum(picture.inputs for picture in pictures)
    return others + sum(math.prod(trunk_output(picture.planes, trunk)) for picture in pictures)


def trunk_output(planes: tuple[int, int, int], trunk: str) -> tuple[int, int, int]:
    """(C, H, W) of what a trunk makes of (C, H, W).

    Raises:
        UserError: a picture is too small for it.
    """
    channels, height, width = planes
    for layer in read_trunk(trunk):
        channels, height, width = layer.filters, layer.size(height), layer.size(width)
        if height < 1 or width < 1:
            raise UserError(f"pictures of {planes[1]} × {planes[2]} pixels are too small for the network {trunk!r}")
    return channels, height, width


def trunk_shapes(part: str, planes: tuple[int, int, int], trunk: str) -> dict[str, tuple[int, ...]]:
    """The name and shape of its weights for a picture: [filters, channels, kernel, kernel] and [filters] of each layer.

    Args:
        part: the picture's name among the parts of an observation; empty: it is all of it.
        planes: (C, H, W) of the picture.
        trunk: its text.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    channels = planes[0]
    for i, layer in enumerate(read_trunk(trunk)):
        name = weight_name(part, i)
        shapes |= {f"{name}_w": (layer.filters, channels, layer.kernel, layer.kernel), f"{name}_b": (layer.filters,)}
        channels = layer.filters
        for j in range(RESIDUAL_CONVOLUTIONS if layer.is_residual else 0):
            shapes |= {f"{name}_{j}_w": (channels, channels, 3, 3), f"{name}_{j}_b": (channels,)}
    return shapes


def weight_name(part: str, layer: int) -> str:
    """What the names of a layer's weights begin with."""
    return f"{part}.conv{layer}" if part else f"conv{layer}"
