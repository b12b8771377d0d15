"""Memory that a learner may take: its container's, where that is less than the machine's."""

from pathlib import Path

import psutil
import pytest
import torch

from learner.memory.free import free_bytes

CPU = torch.device("cpu")
MIB = 1024**2


def show(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("prefix", "limit", "usage", "key"),
    [
        ("", "memory_DOT_max", "memory_DOT_current", "inactive_file"),
        ("memory__", "memory_DOT_limit_in_bytes", "memory_DOT_usage_in_bytes", "total_inactive_file"),
    ],
    ids=["version 2", "version 1"],
)
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, prefix: str, limit: str, usage: str, key: str) -> None:
    show(tmp_path, **{f"{prefix}{limit}": str(50 * MIB), f"{prefix}{usage}": str(40 * MIB)})
    assert free_bytes(CPU, tmp_path) == 10 * MIB
    show(tmp_path, **{f"{prefix}memory_DOT_stat": f"anon 7\n{key} {3 * MIB}\nfile 9"})
    assert free_bytes(CPU, tmp_path) == 13 * MIB
    show(tmp_path, **{f"{prefix}{usage}": str(60 * MIB)})
    assert free_bytes(CPU, tmp_path) == 0


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    show(tmp_path, memory_DOT_max="max", memory_DOT_current="5")
    assert 0.5 < free_bytes(CPU, tmp_path) / psutil.virtual_memory().available < 2
