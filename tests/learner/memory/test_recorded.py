"""The memory of who learns from recordings: what it draws, and what it takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learner.dataset.dataset import Dataset, open_dataset
from learner.memory.recorded import Recorded
from tests.learner.dataset.recordings import LANDER, episodes, write
from tests.learner.dataset.test_windows import windows_of

PARTS, LENGTH, COUNT = 10, 1000, 450
"""Parts of 450 episodes of 1,000 steps: 16 MiB each."""


def draw(dataset: Dataset, count: int) -> None:
    """As many minibatches of 64 windows of thirty steps."""
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    memory = Recorded(windows_of(dataset, 30), dataset.lengths, 64, count, generator, cpu)
    (minibatches,) = memory.draw()
    assert {columns["observations"].shape for columns in minibatches} == {(64, 30, 8)}


def anonymous() -> int:
    """Bytes of this process's memory that no file is behind."""
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def growth(path: str) -> None:
    """Say by how many bytes a process grows that has learned from one part, and now learns from all."""
    dataset = open_dataset(path)
    first = dataset.best(1 / PARTS)
    assert set(first.in_part) == {0}
    draw(first, 50)
    before = anonymous()
    draw(dataset, 200)
    print(len(dataset._opened), anonymous() - before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_over_many_parts(tmp_path: Path) -> None:
    """Ten parts take no more of it than one: they are mapped, and a minibatch is of a few thousand steps."""
    batch = episodes(LANDER, [LENGTH] * COUNT)
    for part in range(PARTS):
        batch.rewards[:] = float(part == 0)  # whose episodes are the best
        batch.episode_returns[:] = batch.rewards.reshape(COUNT, LENGTH).sum(1)
        write(tmp_path / "data", LANDER, batch, writer=f"w{part}")
    size = sum(path.stat().st_size for path in (tmp_path / "data" / "parts").iterdir())
    assert size > PARTS * 15 * 2**20
    code = f"from {__name__} import growth; growth({str(tmp_path / 'data')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    parts, grown = map(int, done.stdout.split())
    assert parts == PARTS
    assert grown < size / PARTS, f"{grown / 2**20:.0f} MiB more for {PARTS} parts of {size / PARTS / 2**20:.0f} MiB"
