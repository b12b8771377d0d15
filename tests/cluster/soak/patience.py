"""Seconds as a machine counts them that has time: where many processes want each CPU, a bound lasts longer."""

from __future__ import annotations

import os
import time

_AT_ONCE = 4.0
"""Processes that may want a CPU at once before its time is said to pass slower: a site's own are so many."""


class Patience:
    """How long something has taken, less what the machine's other work has made it wait."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """As of the last ``look``."""
        self._looked = time.monotonic()

    def look(self) -> float:
        """The seconds until now. Call it every few seconds: the load is that of the moment."""
        now, load = time.monotonic(), os.getloadavg()[0] / (os.cpu_count() or 1)
        self.seconds += (now - self._looked) / max(1.0, load / _AT_ONCE)
        self._looked = now
        return self.seconds
