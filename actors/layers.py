"""What a network's layers do besides multiplying, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from actors.trees import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}
LAYER_NORM_EPS = 1e-5
"""What is added to a layer's variance before it is divided by, as PyTorch does."""


def normalized(x: Array, scale: Array, shift: Array, epsilon: float = LAYER_NORM_EPS) -> Array:
    """Each row of [B, units] to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016, arXiv:1607.06450)."""
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(epsilon))
    return np.asarray(centred / deviation * scale + shift)
