"""Action masks: an observation's part that is called ``action_mask`` says which of the actions are allowed now.

It has a number for each of the distribution's parameters: for each action, for each choice of several, for each switch
to be on; of actions with parts, none of which is continuous, for those of each part in the order of the space's own.
What it forbids has a logit of ``FORBIDDEN``: it is never sampled nor most likely, and entropies and gradients are those
of the distribution over the rest (Huang & Ontañón 2022, arXiv:2006.14171). Networks do not see the mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.parts import Parts
from actors.spaces import Space
from actors.trees import Array

MASK = "action_mask"
FORBIDDEN = -1e30
"""In place of a logit. Finite: its probability, 0 in single precision, times its logarithm must be 0."""


def has_mask(space: Space) -> bool:
    """Whether observations have a part of that name."""
    return isinstance(space, Parts) and MASK in space.spaces


def allowed(observations: Any) -> Array:
    """[B, A] bool, of a column of observations that have the part."""
    mask = observations[MASK]
    return np.asarray(mask.reshape(len(mask), -1) > 0)


def masked(parameters: Array, allows: Array) -> Array:
    """A distribution's parameters [B, A] without what is not allowed."""
    return np.where(allows, parameters, np.float32(FORBIDDEN))
