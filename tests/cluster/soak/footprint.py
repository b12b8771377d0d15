"""Memory and open files of what runs, by what it is; and whether they stay flat."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from tests.cluster.machines import Machine

ROLES = {
    "ray::RolloutActor": "actor",
    "ray::LearnerActor": "learner",
    "learner.train": "driver",
    "ray::ServeReplica": "replica",
    "haproxy.cfg": "HAProxy",
    "gcs_server": "GCS",
    "/raylet": "raylet",
}
"""What a process is, by a word of its command line or title."""
_SETTLING = 60.0
"""Seconds of a process's life that do not count: it imports, fills its buffers and its connections."""
_GROWTH, _SHARE, _FILES = 48e6, 0.15, 40
"""That a process may grow by after it has settled: bytes and a share of them, and files."""
_FEW = 6
"""Samples of a process from which nothing is told."""


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    at: float
    role: str
    process: str
    """Its machine and number, and when it began: which process it is."""
    age: float
    memory: int
    """Bytes, resident and its own alone."""
    files: int


def sample(machines: Mapping[str, Machine], at: float, now: float) -> list[Sample]:
    """All processes that have a role.

    Args:
        machines: by name.
        at: the moment, for the record.
        now: the same, in seconds since the epoch.
    """
    samples = []
    for name, machine in machines.items():
        for process in machine.processes(*ROLES):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                words = process.cmdline()
                said = " ".join(words)
                role = next((role for word, role in ROLES.items() if word in said), None)
                if role is None or words[0] in ("bash", "nsenter", "setpriv"):
                    continue
                memory = process.memory_info()
                began = process.create_time()
                mine = memory.rss - memory.shared
                which = f"{name} {process.pid} {began:.0f}"
                samples.append(Sample(at, role, which, now - began, mine, process.num_fds()))
    return samples


def complaints(samples: Iterable[Sample]) -> list[str]:
    """Processes that grew after they had settled: the last third of their life against the first."""
    lives: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for it in samples:
        if it.age > _SETTLING:
            lives[it.role, it.process].append(it)
    said = []
    for (role, process), life in lives.items():
        if len(life) < _FEW:
            continue
        third = len(life) // 3
        first, last = life[:third], life[-third:]
        memory = [statistics.median(it.memory for it in part) for part in (first, last)]
        files = [statistics.median(it.files for it in part) for part in (first, last)]
        if memory[1] > memory[0] * (1 + _SHARE) + _GROWTH:
            said.append(f"{role} ({process}) grew from {memory[0] / 1e6:.0f} to {memory[1] / 1e6:.0f} MB")
        if files[1] > files[0] + _FILES:
            said.append(f"{role} ({process}) had {files[0]:.0f} files open, and then {files[1]:.0f}")
    return said
