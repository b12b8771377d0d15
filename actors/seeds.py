"""Seeds of environments: 31 bits each, so that any environment takes them, and independent of each other."""

from __future__ import annotations

import numpy as np

from actors.errors import UserError

Seed = int | np.random.SeedSequence
"""What others are derived from: the seed of a run, or one part of it (NumPy's SeedSequence with a spawn key)."""

ENVIRONMENTS, ACTIONS = 0, 1
"""Parts of the seed of whoever flies."""

END_OF_SEEDS = 2**31
"""Environments hand their seed to libraries that want it as an int32, or to ``np.random.seed``."""
_MARGIN = 2**20
"""Seeds at either end that are never derived: the low ones are flown for scores, from the high ones others count up."""


def sub_seed(seed: Seed, *key: int) -> np.random.SeedSequence:
    """One part of a seed, by numbers that name it: always the same one, and unrelated to all other parts."""
    if isinstance(seed, int):
        return np.random.SeedSequence(seed, spawn_key=key)
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key))


def derive(seed: Seed, count: int) -> list[int]:
    """``count`` seeds of 31 bits: always the same ones, and unrelated to those of any other ``seed``."""
    words = sub_seed(seed).generate_state(count, np.uint64)
    return [int(word) % (END_OF_SEEDS - 2 * _MARGIN) + _MARGIN for word in words]


def check_seeds(first: int, count: int = 1) -> None:
    """Refuse seeds ``first``, ``first + 1``, … of which one is negative or has more than 31 bits.

    Raises:
        UserError: says what would be right.
    """
    if not 0 <= first <= END_OF_SEEDS - count:
        right = "below 2**31" if count == 1 else f"at most {END_OF_SEEDS - count} for {count} episodes"
        raise UserError(f"seed must be zero or more and {right}, not {first}")
