"""Convolutions in numpy, by their definition: what those that act and those that learn are held against."""

import numpy as np

from actors.pictures import Picture
from actors.trees import Array
from actors.trunks import RESIDUAL_CONVOLUTIONS, read_trunk, weight_name


def convolved(x: Array, w: Array, b: Array, stride: int = 1, padding: int = 0) -> Array:
    """[B, C, H, W] in float64, for filters [F, C, K, K]."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bchwij,fcij->bfhw", windows, w.astype(np.float64)) + b[:, None, None]


def pooled(x: Array) -> Array:
    """The largest of 3 × 3 at stride 2, with a border of one."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((4, 5))


def trunk_features(values: Array, picture: Picture, part: str, trunk: str, weights: dict[str, Array]) -> Array:
    """[B, features] in float64."""

    def layer(x: Array, name: str, stride: int = 1, padding: int = 0) -> Array:
        return convolved(x, weights[f"{name}_w"], weights[f"{name}_b"], stride, padding)

    x = picture.encode(values) / 255
    layers = read_trunk(trunk)
    for i, one in enumerate(layers):
        name = weight_name(part, i)
        if not one.is_residual:
            x = np.maximum(layer(x, name, one.stride), 0)
            continue
        x = pooled(layer(x, name, padding=1))
        for j in range(0, RESIDUAL_CONVOLUTIONS, 2):
            inner = layer(np.maximum(x, 0), f"{name}_{j}", padding=1)
            x = x + layer(np.maximum(inner, 0), f"{name}_{j + 1}", padding=1)
    if layers[-1].is_residual:
        x = np.maximum(x, 0)
    return x.reshape(len(x), -1)
