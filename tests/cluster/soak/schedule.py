"""Which faults strike, in what order and after what pauses: by a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOGETHER = 0.2
"""The share of strikes at which a second fault comes before the first is over."""
_PAUSES = (2.0, 12.0)
"""Seconds of peace between strikes."""


@dataclass(frozen=True)
class Strike:
    """One fault, or two at once."""

    faults: tuple[str, ...]
    pause: float
    """Seconds of peace before it."""
    seed: int
    """Of what is random in it."""


def schedule(names: Sequence[str], seed: int) -> Iterator[Strike]:
    """Strikes without end: each fault comes once before any comes again."""
    rng = random.Random(seed)
    deck: list[str] = []
    while True:
        count = min(len(names), 2 if rng.random() < _TOGETHER else 1)
        if len(deck) < count:
            rest = [name for name in names if name not in deck]
            deck = [*rng.sample(rest, len(rest)), *deck]
        yield Strike(tuple(deck.pop() for _ in range(count)), rng.uniform(*_PAUSES), rng.randrange(2**31))
