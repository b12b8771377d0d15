"""How much memory is free for a learner, where a container may have less than its machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Files of cgroups, version 2 and 1, that tell limit, use, and what of it can be had back: files that were read."""


def free_bytes(device: torch.device, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be taken on a device: of a GPU, or of the machine and of the container on it.

    Args:
        device: of the learner.
        cgroup: where Linux shows a container its limits.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    for limit, used, statistics, reclaimable in _CGROUPS:
        numbers = [_read(cgroup / name) for name in (limit, used)]
        if numbers[0].isdigit() and numbers[1].isdigit():
            lines = dict(line.split(maxsplit=1) for line in _read(cgroup / statistics).splitlines() if " " in line)
            free = min(free, max(0, int(numbers[0]) - int(numbers[1]) + int(lines.get(reclaimable, 0))))
    return free


def _read(file: Path) -> str:
    """What a file says; nothing where there is none, or no limit is set."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
