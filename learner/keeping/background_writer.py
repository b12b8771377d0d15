"""A thread that puts a run's files where they belong while training goes on, however slow or broken the storage is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("touchdown")

PATIENCE = 300.0
"""Seconds that a run waits at its end for storage to take what it has learned."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two tries; each pause is twice the one before."""
_REMIND_SECONDS = 60.0
"""Between two lines of the log about the same trouble."""
_LONG_SECONDS = 30.0
"""After which a write that has not ended is worth a line."""
_SHARE = 0.1
"""The share of the time that jobs of one name may take: a file that is sent whole each time takes ever longer."""


class BackgroundWriter:
    """Runs jobs that write, one at a time, in a thread of its own; one that fails is tried again until it is done.

    Of jobs of one name only the newest is kept: a policy that could not be written is not written after the next.
    A job must be safe to run twice.

    Args:
        place: what to call the storage in the log.
    """

    def __init__(self, place: str) -> None:
        self.failures = 0
        """Tries that failed, in all."""
        self._place = place
        self._jobs: dict[str, Callable[[], None]] = {}
        self._every: dict[str, float] = {}
        self._due: dict[str, float] = {}
        """When a job of that name may run again."""
        self._took: dict[str, float] = {}
        """Seconds that the last of each name took."""
        self._changed = threading.Condition()
        self._closing = self._flushing = False
        self._errors: dict[str, OSError] = {}
        """The last errors of jobs that have failed since they were last done, by the jobs' names."""
        self._broken: BaseException | None = None
        self._busy = ""
        self._busy_since = 0.0
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def submit(self, name: str, job: Callable[[], None], every: float = 0.0) -> None:
        """Have a job done soon, but not sooner than so many seconds after the last of its name.

        Raises:
            Exception: what an earlier job raised that was no OSError.
        """
        with self._changed:
            if self._broken:
                raise self._broken
            self._jobs[name], self._every[name] = job, every
            self._changed.notify_all()
            if self._busy and time.monotonic() - self._busy_since > _LONG_SECONDS:
                self._busy_since = time.monotonic()
                log.warning("writing to %s takes long; training goes on", self._place)

    def flush(self, patience: float) -> None:
        """Wait until everything is written.

        Raises:
            OSError: it was not after ``patience`` seconds.
            Exception: what a job raised that was no OSError.
        """
        deadline = time.monotonic() + patience
        with self._changed:
            self._due.clear()
            self._flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._broken or not (self._jobs or self._busy), timeout=patience)
            self._flushing = False
            if self._broken:
                raise self._broken
            if self._jobs or self._busy:
                waited = patience + time.monotonic() - deadline
                silence = TimeoutError(f"{self._place} did not answer for {waited:.0f} s")
                raise [*self._errors.values(), silence][0]

    def close(self) -> None:
        """End the thread; what is not written stays unwritten."""
        with self._changed:
            self._closing = True
            self._jobs.clear()
            self._changed.notify_all()
        self._thread.join(timeout=_LONGEST_PAUSE)

    def _work(self) -> None:
        pause, since, reminded = _FIRST_PAUSE, 0.0, -_REMIND_SECONDS
        while job := self._next():
            name, run = job
            began = time.monotonic()
            try:
                run()
            except OSError as error:
                self._errors[name] = error
                self.failures += 1
                now = time.monotonic()
                since = since or now
                if now - reminded >= _REMIND_SECONDS:
                    reminded = now
                    log.warning("cannot write to %s (%s); training goes on, writing is tried again", self._place, error)
                with self._changed:
                    self._busy = ""
                    self._jobs.setdefault(name, run)  # unless a newer one has come
                    flushing = self._flushing
                    self._changed.wait_for(
                        lambda was=flushing: self._closing or self._flushing != was,  # type: ignore[misc]
                        timeout=_FIRST_PAUSE if flushing else pause,
                    )
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            except BaseException as error:  # a mistake of ours must end the run, not this thread in silence
                with self._changed:
                    self._broken, self._busy = error, ""
                    self._changed.notify_all()
                return
            if since:
                log.info("writing to %s again after %.0f s", self._place, time.monotonic() - since)
            pause, since, reminded = _FIRST_PAUSE, 0.0, -_REMIND_SECONDS
            self._errors.pop(name, None)
            now = time.monotonic()
            usual = min(now - began, self._took.get(name, now - began))  # storage that stood still once is not slow
            self._took[name] = now - began
            with self._changed:
                self._busy = ""
                if not self._flushing:
                    self._due[name] = now + max(usual * (1 / _SHARE - 1), self._every[name])
                self._changed.notify_all()

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        """The job that has waited longest of those that are due; None at the end."""
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                for name in self._jobs:
                    if self._due.get(name, now) <= now:
                        self._busy, self._busy_since = name, now
                        return name, self._jobs.pop(name)
                waits = [self._due[name] - now for name in self._jobs]
                self._changed.wait(timeout=min(waits) if waits else None)
            return None
