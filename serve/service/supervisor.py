"""The process that a user starts: it heeds signals, so that the one that runs Ray need not, and leaves nothing behind.

Ray takes over the signal handlers of the process that starts it, and its own processes get what is sent to a whole
group. So that process is a child in a session of its own, which is told to stop through a pipe: when the supervisor
writes to it, or is killed. What the child leaves becomes the supervisor's, which ends it. Nothing that
takes time is imported here, so that signals are heeded before what takes seconds to import is.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from learner.commands.signals import SAME_SECONDS

PATIENCE = 60.0
"""Seconds that a service may take to finish what it answers."""
ROOT = Path("/tmp")
"""Not TMPDIR: the path of a socket has 107 bytes at the most, of which Ray and HAProxy take 80."""
_PREFIX, _LOCK = "tdserve-", ".touchdown-serve"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Stop:
    """When a service is to end: asked by a signal to its supervisor, or because that is gone.

    Until ``gently`` is called, nobody is answered yet, and the process ends there and then, with all that it started.

    Args:
        asked: the end of a pipe: a byte comes through it then, or, if the supervisor is gone, it is closed.
        directory: that only this user may enter; it goes with the service.
    """

    def __init__(self, asked: int, directory: Path) -> None:
        self.directory = directory
        self._asked, self._event, self._gently = asked, threading.Event(), threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        supervised = os.read(self._asked, 1)
        if self._gently.is_set():
            self._event.set()
            return
        if not supervised:  # otherwise what is left is ended from there, and nothing here can fail of that
            end_descendants()
            shutil.rmtree(self.directory, ignore_errors=True)
        os._exit(0)

    def gently(self) -> None:
        """From now on the process ends itself, when ``wait`` returns."""
        self._gently.set()

    def wait(self) -> None:
        """Until the service is to end."""
        self._event.wait()


def supervise(work: Callable[[Stop], None]) -> None:
    """Run ``work`` in a child of this process, and end as it does; returns in the child alone.

    SIGTERM, SIGINT and SIGHUP (unless that is ignored, as under nohup) have the child finish what it answers and end
    with status 0. A second one, more than SAME_SECONDS later, or PATIENCE, ends it at once, with status 1.
    """
    stopping = {signal.SIGTERM, signal.SIGINT}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stopping.add(signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping | {signal.SIGCHLD})
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    directory, lock = private_directory()
    asked, ask = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(ask)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            work(Stop(asked, directory))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return
    os.close(asked)
    status = _attend(child, ask, stopping)
    end_descendants()
    shutil.rmtree(directory, ignore_errors=True)
    os.close(lock)
    if sys.stdout.isatty():
        print("\x1b[?25h", end="")  # the cursor, which a child that was ended may have hidden
    sys.exit(status)


def _attend(child: int, ask: int, stopping: set[signal.Signals]) -> int:
    """Wait for the child and for signals; returns its exit status."""
    deadline = None
    while True:
        left = 3600.0 if deadline is None else max(deadline - time.monotonic(), 0)
        number = signal.sigtimedwait({*stopping, signal.SIGCHLD}, left)
        if number is not None and number.si_signo == signal.SIGCHLD:
            if (status := _reap(child)) is not None:
                return status
        elif number is not None and deadline is not None and deadline - time.monotonic() > PATIENCE - SAME_SECONDS:
            continue  # one Ctrl-C, told to a group by the terminal and by who leads it
        elif deadline is not None:
            print("ended before all was answered", file=sys.stderr)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 1
        elif number is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended of itself
                os.write(ask, b"!")
            deadline = time.monotonic() + PATIENCE


def _reap(child: int) -> int | None:
    """Collect what has ended, orphans of the child's among it; the child's exit status, None while it runs."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = os.waitstatus_to_exitcode(ended[1])
    if status is not None and status < 0:
        print(f"the service was ended by {signal.Signals(-status).name}", file=sys.stderr)
        return 128 - status
    return status


def private_directory() -> tuple[Path, int]:
    """A new directory that only this user may enter, and the lock on it.

    A supervisor and its child hold the lock while they live: one that can be had is of a service that was killed. What
    that has left, processes and directory, is ended first.
    """
    for old in ROOT.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):
            if old.lstat().st_uid == os.getuid():
                lock = os.open(old, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    end(naming(old.parent))
                    shutil.rmtree(old.parent, ignore_errors=True)
                finally:
                    os.close(lock)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=ROOT))
    lock = os.open(directory / "new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(directory / "new", directory / _LOCK)  # locked before another start can find it
    return directory, lock


def naming(directory: Path) -> list[psutil.Process]:
    """Processes whose command or environment names the directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(directory) in word for word in (*process.cmdline(), *process.environ().values())):
                found.append(process)
    return found


def end_descendants() -> None:
    """End every process below this one, until there is none."""
    while below := psutil.Process().children(recursive=True):
        end(below)


def end(processes: list[psutil.Process]) -> None:
    """Kill processes, and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def die_with_parent() -> None:
    """Have this process killed when the one that started it ends; so too the program that takes its place."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":  # other systems have no such thing
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
