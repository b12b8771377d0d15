"""Ends the Doom games of a process that has ended, however it did, and frees the memory that they shared with it.

``python doom_keeper.py DIRECTORY`` does so once its standard input is closed: the games are those whose command names
the directory, which goes too. It is nobody's child and heeds no signal, since what ends an actor may end its children
and its process group with it; until then it imports nothing that takes memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SHARED = Path("/dev/shm")


def main(directory: str) -> None:
    """Wait, then leave nothing behind."""
    if os.fork():
        os._exit(0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1):  # a game that is just being started holds the other end until its command is its own
        pass
    end_games(directory)
    free_shared_memory()
    shutil.rmtree(directory, ignore_errors=True)


def end_games(directory: str) -> None:
    """Kill the games whose command names the directory, and wait until they are gone; they ignore SIGTERM."""
    import psutil

    games = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(directory in word for word in process.cmdline()):
                process.kill()
                games.append(process)
    for game in games:
        with contextlib.suppress(psutil.NoSuchProcess):
            while game.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)


def free_shared_memory() -> None:
    """Remove the files of Doom's shared memory that belong to this user and that no process has open or mapped."""
    left = set()
    for file in SHARED.glob("ViZDoom*"):
        with contextlib.suppress(OSError):
            if file.stat().st_uid == os.getuid():
                left.add(str(file))
    for process in Path("/proc").glob("[0-9]*") if left else ():
        left.difference_update(_used(process))
    for name in left:
        Path(name).unlink(missing_ok=True)


def _used(process: Path) -> Iterator[str]:
    """Names of files that a process has open or mapped; one that it maps in the meantime is among those it has open."""
    with contextlib.suppress(OSError):
        for opened in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(opened)
        yield from (process / "maps").read_text().split()


if __name__ == "__main__":
    main(sys.argv[1])
