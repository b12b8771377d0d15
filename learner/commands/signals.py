"""Ctrl-C, SIGTERM and SIGHUP at any moment of a command: one line, and the exit status that shells know.

It imports nothing that takes time: it is at work before a command imports what does.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from learner.commands.entry import begin

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SAME_SECONDS = 1.0
"""A signal so soon after another says the same again: a terminal that closes sends two."""
_AGAIN_SECONDS = 0.1
"""After which a signal is raised again that was dropped: what dropped it is over by then."""

Handler = Callable[[int, FrameType | None], Any]


class EndedBySignal(KeyboardInterrupt):
    """A signal ends the command. No ``except Exception`` takes it for an error.

    Args:
        number: of the signal.
        kept: what there is of the work, in words; for the one line that says so.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(number)
        self.number, self.kept = number, kept


_received: int | None = None
"""The last signal that was to end the command; None: there was none."""


def ended_by(error: BaseException) -> EndedBySignal | None:
    """The signal that an error comes of; None: it comes of none.

    An error may have come up as things were put in order because of the signal. What a handler raises in one of Ray's
    calls comes out as a KeyboardInterrupt of Ray's; in C code that calls Python, as Pygame's does to read a picture, as
    whatever error that code makes of it: after a signal, an error that ends the command is taken for its doing.
    """
    cause: BaseException | None = error
    while cause and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    if isinstance(cause, EndedBySignal):
        return cause
    if cause is None and (_received is None or not isinstance(error, Exception)):
        return None
    return EndedBySignal(_received or signal.SIGINT)


def run_command(module: str) -> NoReturn:
    """Run ``python -m module``: import it, which takes seconds, call its ``main``, and end the process.

    A signal raises EndedBySignal wherever ``main`` is, so that nothing is left half done; the status is then 128 + its
    number: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. While there is nothing to put in order, at the beginning
    and at the end, the process just ends.
    """
    said = False

    def say(number: int, kept: str) -> None:
        nonlocal said
        said = True
        threading.excepthook = sys.unraisablehook = _leave_unsaid
        with contextlib.suppress(OSError):  # nobody reads it any more
            words = f"; {kept}" if kept else ""
            os.write(2, f"python -m {module}: ended by {signal.Signals(number).name}{words}\n".encode())
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the last word: Ray's threads write of what they then miss

    def leave(number: int, _frame: FrameType | None) -> None:
        if not said:
            say(number, "")
        os._exit(128 + number)

    def end(number: int) -> None:
        global _received  # noqa: PLW0603  # one process has one command
        _received = number
        threading.excepthook = _leave_unsaid
        raise EndedBySignal(number)

    _handle(leave)
    begin(f"python -m {module}")
    main = importlib.import_module(module).main
    _handle(_heeding(end))
    sys.unraisablehook = _raise_again
    try:
        try:
            main()
        finally:
            _handle(leave)
    except BaseException as error:
        ended = ended_by(error)
        if not ended:
            raise
        say(ended.number, ended.kept)
        sys.exit(128 + ended.number)
    sys.exit()


@contextlib.contextmanager
def keeping(what: str) -> Iterator[None]:
    """Have the line of a signal that ends the block say what is kept."""
    try:
        yield
    except BaseException as error:
        ended = ended_by(error)
        if not ended:
            raise
        ended.kept = ended.kept or what
        raise ended from None


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Call ``stop`` with the number of the first signal; a second one does what it would have done without this."""
    asked = False

    def heed(number: int) -> None:
        nonlocal asked
        if asked:
            restore()
            signal.raise_signal(number)
        asked = True
        stop(number)

    def restore() -> None:
        for number, handler in previous.items():
            if handler is not None:  # not one of Python's
                signal.signal(number, handler)

    try:
        previous = _handle(_heeding(heed))
    except ValueError:  # not the main thread, such as a Tune trial: its owner handles signals
        previous = {}
    try:
        yield
    finally:
        restore()


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """Have a signal's exception raised once more that came up where Python drops what is raised: in ``__del__``, or in
    the callback of a weak reference, of which every import has one."""
    error = lost.exc_value
    if not isinstance(error, EndedBySignal):
        sys.__unraisablehook__(lost)
        return
    number, usual = error.number, signal.getsignal(error.number)

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, usual)
        raise EndedBySignal(number)

    signal.signal(number, end)
    threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main, [number]).start()


def _leave_unsaid(_: Any) -> None:
    """What a thread of a library raises as the command ends, because something that it watched has ended first."""


def _heeding(act: Callable[[int], None]) -> Handler:
    """A handler that acts once for signals that come together."""
    last = -math.inf

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()
        if time.monotonic() - last > SAME_SECONDS:
            last = time.monotonic()
            act(number)

    return handle


def _handle(handler: Handler) -> dict[int, Any]:
    """Take signals; returns what was there. A SIGHUP that nohup has the program ignore stays ignored."""
    wanted = [number for number in _ENDING if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in wanted}


def _leave_terminal() -> None:
    """The terminal is gone: what is written to it would be an error, and end a run that ends well."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
