"""A command that waits to be interrupted."""

from __future__ import annotations

if __name__ == "__main__":
    from learner.commands.signals import run_command

    run_command("tests.learner.interruptible")

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

from actors.errors import UserError
from learner.commands.command_line import one_line_errors
from learner.commands.signals import EndedBySignal, keeping, stopping_on_signals


def say(text: str) -> None:
    """A line in one system call: a signal that comes at once cannot have its handler write in the midst of it."""
    os.write(1, f"{text}\n".encode())


def wait(until: Callable[[], object] = lambda: False) -> None:
    """Two minutes at most."""
    say("waiting")
    deadline = time.monotonic() + 120
    while not until() and time.monotonic() < deadline:
        time.sleep(0.01)


def fail(after: threading.Thread | None = None) -> None:
    if after:
        after.join()
    raise OSError("its connection is closed")


class Lingering:
    """Takes two minutes to go, where Python drops what is raised."""

    def __del__(self) -> None:
        wait()


def main() -> None:
    """Wait in the way that the first argument says."""
    how = sys.argv[1]
    if how == "cleaning up fails":
        try:
            wait()
        finally:
            raise OSError("its pipe is broken")
    elif how == "a thread fails on the way out":
        thread = threading.Thread(target=fail)
        try:
            wait()
        finally:
            thread.start()
            thread.join()
    elif how == "a thread fails after it has stopped":
        heeded: list[int] = []
        with stopping_on_signals(heeded.append):
            wait(lambda: heeded)
        threading.Thread(target=fail, args=[threading.main_thread()]).start()
        raise EndedBySignal(heeded[0])
    elif how == "a library takes it for an error of its own":
        with one_line_errors("tests.learner.interruptible"), keeping("the work so far is kept"):
            with contextlib.suppress(KeyboardInterrupt):
                wait()
            raise UserError("the file is no picture")
    elif how == "it works":
        with keeping("the work so far is kept"):
            wait()
    elif how == "it is asked to stop":
        with stopping_on_signals(lambda number: say(f"heeded {number}")):
            wait()
    elif how == "a library writes as the process ends":
        atexit.register(os.write, 2, b"a connection was closed\n")
        wait()
    elif how == "an object's end is under way":
        Lingering()
        wait()
    elif how == "it has done its work":
        atexit.register(wait)
