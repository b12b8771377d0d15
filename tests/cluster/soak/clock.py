"""Clocks that can be stepped, each machine's own: a library of a page of C, loaded into its processes.

libfaketime (0.9.10) has Python's ``time.sleep`` fail. Where there is no C compiler no fault of clocks strikes.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


def can_step() -> bool:
    """Whether there is a compiler."""
    return shutil.which("cc") is not None


@functools.cache
def _library(directory: Path) -> Path:
    library = directory / "clock.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl", "-lpthread"], check=True)
    return library


def clock_variables(clock: Path) -> Mapping[str, str]:
    """The variables with which a process's time of day is off by what that file says; made if it is not there."""
    if not can_step():
        return {}
    if not clock.exists():
        step(clock, 0)
    return {"LD_PRELOAD": str(_library(clock.parent)), "SOAK_CLOCK": str(clock)}


def step(clock: Path, seconds: float) -> None:
    """Let the clock be off by so much from now on."""
    with clock.open("r+b" if clock.exists() else "w+b") as file:  # in place: it is mapped into memory
        file.write(round(seconds).to_bytes(8, "little", signed=True))
