"""Action masks: an observation's part that is called ``action_mask`` says which of the actions are allowed now.

It has a number for each action, for each choice of several, for each switch to be on; of actions with parts, for those
of each part in the order of the space's own. Continuous components have none; actions of nothing else have no mask.
What it forbids has a logit of ``FORBIDDEN``: it is never sampled nor most likely, and entropies and gradients are those
of the distribution over the rest (Huang & Ontañón 2022, arXiv:2006.14171). Networks do not see the mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.parts import Parts, leaf_spaces, num_continuous
from actors.spaces import Box, Space
from actors.trees import Array

if TYPE_CHECKING:
    from actors.spec import PolicySpec

MASK = "action_mask"
FORBIDDEN = -1e30
"""In place of a logit. Finite: its probability, 0 in single precision, times its logarithm must be 0."""


def has_mask(space: Space) -> bool:
    """Whether observations have a part of that name."""
    return isinstance(space, Parts) and MASK in space.spaces


def chooses(action: Space) -> Array | None:
    """[A] bool: which of a distribution's parameters are of choices and switches; None: all are."""
    if not num_continuous(action):
        return None
    return np.concatenate([np.full(leaf.inputs, not isinstance(leaf, Box)) for _, leaf in leaf_spaces(action)])


def allowed(observations: Any, spec: PolicySpec) -> Array:
    """[B, A] bool: which parameters a column of observations allows that have the part."""
    mask = observations[MASK]
    allows = np.asarray(mask.reshape(len(mask), -1) > 0)
    if spec.chooses is None:
        return allows
    of_all = np.ones((len(mask), len(spec.chooses)), bool)
    of_all[:, spec.chooses] = allows
    return of_all


def masked(parameters: Array, allows: Array) -> Array:
    """A distribution's parameters [B, A] without what is not allowed."""
    return np.where(allows, parameters, np.float32(FORBIDDEN))
