"""Ctrl-C and SIGTERM, as a wish to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stopping_on_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call ``stop`` with the reason at the first Ctrl-C or SIGTERM; a second one ends the program at once."""

    def handle(number: int, _frame: Any) -> None:
        stop(f"{signal.Signals(number).name} received")
        signal.signal(number, previous[number])

    previous: dict[int, Callable[..., Any] | int | None] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            previous[number] = signal.signal(number, handle)
        except ValueError:  # not the main thread, such as a Tune trial: its owner handles signals
            break
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
