"""A command that is started again whenever it ends, as whoever submits a job until it has ended does."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PAUSE = 2.0
"""Seconds before it is started again."""
_SAID = 2_000
"""Characters of what it said last."""


@dataclass(frozen=True)
class End:
    """That a command ended by itself, or was killed."""

    name: str
    at: float
    """By ``time.monotonic``."""
    status: int
    said: str


class Supervised:
    """Keeps a command running in a thread of its own, until ``stop``.

    Args:
        name: of it.
        start: starts it, its output to the file.
        log: that file.
        until_success: it has done its work when it ends with status 0.
    """

    def __init__(
        self, name: str, start: Callable[[Path], subprocess.Popen[str]], log: Path, until_success: bool = False
    ) -> None:
        self.ends: list[End] = []
        self.name, self._start, self._log, self._until_success = name, start, log, until_success
        self._stopping = threading.Event()
        self.done = threading.Event()
        """It has ended with success."""
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._tend, daemon=True)
        self._thread.start()

    def _tend(self) -> None:
        while not self._stopping.is_set():
            try:
                self._process = self._start(self._log)
                status = self._process.wait()
            except (OSError, AssertionError) as error:  # its machine is off
                self._log.open("a").write(f"not started: {error}\n")
                self._stopping.wait(_PAUSE)
                continue
            if status == 0 and self._until_success:
                self.done.set()
                return
            if self._stopping.is_set():
                return
            said = self._log.read_text(errors="replace")[-_SAID:]
            self.ends.append(End(self.name, time.monotonic(), status, said))
            self._stopping.wait(_PAUSE)

    def stop(self, seconds: float = 120.0) -> None:
        """End it with SIGTERM, and do not start it again."""
        self._stopping.set()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._thread.join(seconds)
