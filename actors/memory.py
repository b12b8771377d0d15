"""Memories of several episodes at once, as they end and begin: {name: [slots, …]}."""

from __future__ import annotations

import numpy as np

from actors.episode import Array
from actors.policy import Memory, Policy


def restarted(memory: Memory, begins: Array, policy: Policy) -> Memory:
    """The memory with that of the slots where an episode begins as ``policy`` starts one.

    Args:
        memory: of ``slots`` episodes.
        begins: [slots] bool.
        policy: who flies.
    """
    if not begins.any():
        return memory
    fresh = policy.start(len(begins))
    return {
        name: np.where(begins.reshape(-1, *[1] * (rows.ndim - 1)), fresh[name], rows) for name, rows in memory.items()
    }
