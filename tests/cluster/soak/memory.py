"""A machine's memory: a group of the kernel's (cgroups, v1 or v2) that can be given less than its processes use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.machines import Machine
from tests.serve.served import wait_for

_ROOT = Path("/sys/fs/cgroup")
_IS_OLD = (_ROOT / "memory").is_dir()
_GROUPS = _ROOT / "memory" if _IS_OLD else _ROOT
_LIMIT, _USED, _ALL = ("limit_in_bytes", "usage_in_bytes", "-1") if _IS_OLD else ("max", "current", "max")
_SHARES = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Of what it uses that a machine is left with: the least that the kernel can bring about at once."""


def can_squeeze() -> bool:
    """Whether groups can be made here."""
    return os.access(_GROUPS, os.W_OK) and (_IS_OLD or "memory" in (_ROOT / "cgroup.controllers").read_text())


def confine(machine: Machine) -> None:
    """Count what the machine's processes use from now on, and all that they start; waits until Ray starts there."""
    procs = _group(machine) / "cgroup.procs"
    procs.parent.mkdir()

    def all_are_in() -> bool:
        has_begun = bool(machine.processes("ray"))
        for pid in pids() - counted():
            with contextlib.suppress(OSError):  # it has ended
                procs.write_text(str(pid))
        return has_begun and pids() <= counted()

    def pids() -> set[int]:
        return {process.pid for process in machine.processes()}

    def counted() -> set[int]:
        return set(map(int, procs.read_text().split()))

    wait_for(all_are_in, f"the memory of {machine.name} is counted", every=0.05)


def release(machine: Machine) -> None:
    """A machine that is off needs no group."""
    with contextlib.suppress(OSError):
        _group(machine).rmdir()


@contextlib.contextmanager
def squeezed(machine: Machine) -> Iterator[int]:
    """Leave a machine less than it uses, for as long as this lasts; bytes. Who wants more is ended by the kernel."""
    limit = _group(machine) / f"memory.{_LIMIT}"
    used = int((_group(machine) / f"memory.{_USED}").read_text())
    try:
        for share in _SHARES:
            with contextlib.suppress(OSError):  # so little cannot be had without ending somebody
                limit.write_text(str(int(used * share)))
                break
        yield int(limit.read_text().replace("max", "0"))
    finally:
        with contextlib.suppress(OSError):  # the machine is off
            limit.write_text(_ALL)


def _group(machine: Machine) -> Path:
    return _GROUPS / f"soak-{os.getpid()}-{machine.name}"
