"""Faults of the device that a learner computes on, told from faults of what it computes.

After an error of CUDA other than a lack of memory every further call in that process fails too: only a new process,
with a new context, can go on (CUDA C++ Programming Guide, "Error Checking": sticky errors).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|_ALLOC_FAILED", re.IGNORECASE)
_BROKEN = re.compile(r"CUDA error|CUDA driver|CUDNN_STATUS_|CUBLAS_STATUS_|CUSOLVER_STATUS_|uncorrectable ECC")
_LOWER = (
    "lower --batch-size, the steps of an update (--n-envs × --n-steps × --rollouts-per-update), --buffer-size or "
    "--hidden-sizes, or learn on a machine with more memory"
)
_LONGEST = 300


class DeviceFault(RuntimeError):
    """A device failed a learner. A new process that goes on from a checkpoint may fare better."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)  # both, so that pickle takes both to another process
        self.remedy = remedy
        """What would help if it comes again; empty: nothing that can be set."""

    def __str__(self) -> str:
        return str(self.args[0])


def device_fault(error: BaseException) -> DeviceFault | None:
    """The fault of the device that this error tells of; None: it is of another kind.

    By its words, because torch raises some as plain RuntimeErrors, and those of a recorded step in a text of its own.
    """
    if not isinstance(error, RuntimeError | MemoryError):
        return None
    text = str(error)
    if found := _NO_MEMORY.search(text):
        where = text.rfind("\n", 0, found.start()) + 1
    elif found := _BROKEN.search(text):
        where = found.start()
    elif not isinstance(error, MemoryError):
        return None
    else:
        where = 0
    said = " ".join(text[where : where + _LONGEST].split()) or "out of memory"
    no_memory = isinstance(error, MemoryError) or _NO_MEMORY.search(text)
    return DeviceFault(said, _LOWER if no_memory else "")


@contextlib.contextmanager
def telling_device_faults() -> Iterator[None]:
    """Raises a DeviceFault for what is one."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if fault := device_fault(error):
            raise fault from error
        raise
