"""What a run waits for, said in its log when the wait is long."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("touchdown")

PATIENT_SECONDS = 15.0
"""After which a wait is worth a line."""
_REMIND_SECONDS = 600.0
"""Between two lines about the same wait."""


class Waiting:
    """Tells the log of a wait that lasts: what for, again every ten minutes, and when it is over."""

    def __init__(self) -> None:
        self._what = ""
        self._since = self._said = 0.0

    def look(self, what: str) -> None:
        """Take note of what is waited for now, in words; empty: nothing."""
        now = time.monotonic()
        if what != self._what:
            if self._said and not what:
                log.info("no longer waiting for %s", self._what)
            self._what, self._since, self._said = what, now, 0.0
        if what and now - self._since > PATIENT_SECONDS and (not self._said or now - self._said > _REMIND_SECONDS):
            self._said = now
            log.warning("still waiting for %s", what)


def wishes(count: float, resource: str, labels: dict[str, str]) -> str:
    """What a process asks of a node, in words."""
    words = [f"{count:g} {resource}"] if count else []
    return ", ".join([*words, *(f"label {name}={value}" for name, value in labels.items())]) or "room for a process"
