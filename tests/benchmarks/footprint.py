"""What a run costs before it learns and while it does: seconds to the first update, and memory of its processes.

python -m tests.benchmarks.footprint --seconds 60 --out footprint.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from actors.files import write_text

SAMPLE_SECONDS = 5.0
START_SECONDS = 120.0
ROLES = {"ray::RolloutActor": "actor", "ray::LearnerActor": "learner"}


def resident(command: psutil.Process) -> dict[str, list[float]]:
    """Resident megabytes of the driver, and of the actors and the learner below it."""
    sizes: dict[str, list[float]] = {"driver": [command.memory_info().rss / 1e6]}
    for process in command.children(recursive=True):
        try:
            title, size = " ".join(process.cmdline()), process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
        for name, role in ROLES.items():
            if title.startswith(name):
                sizes.setdefault(role, []).append(size)
    return sizes


def observe(run_seconds: float, run_dir: Path) -> dict[str, Any]:
    """Train for ``run_seconds`` with the command a user types, and watch its processes."""
    arguments = ["--run-dir", str(run_dir), "--max-seconds", str(run_seconds), "--total-timesteps", "None"]
    arguments += ["--evaluate-episodes", "0", "--no-video"]
    start = time.monotonic()
    command = subprocess.Popen([sys.executable, "-m", "learner.train", *arguments], stdout=subprocess.DEVNULL)
    metrics = run_dir / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if command.poll() is not None or time.monotonic() - start > START_SECONDS:
            raise RuntimeError(f"no update within {START_SECONDS:g} s; exit code {command.poll()}")
        time.sleep(0.05)
    first_update = time.monotonic() - start
    process = psutil.Process(command.pid)
    samples: list[tuple[float, dict[str, list[float]]]] = []
    while command.poll() is None:
        try:
            samples.append((time.monotonic() - start, resident(process)))
        except psutil.NoSuchProcess:
            break
        time.sleep(SAMPLE_SECONDS)
    if command.wait() != 0:
        raise RuntimeError(f"training ended with exit code {command.returncode}")
    flying = [(seconds, sizes) for seconds, sizes in samples if "actor" in sizes and "learner" in sizes]
    early, last = flying[len(flying) // 4][1], flying[-1][1]
    return {
        "seconds_to_first_update": first_update,
        "run_seconds": run_seconds,
        "largest_mb": {role: max(max(sizes[role]) for _, sizes in flying) for role in last},
        "growth_mb": {role: max(last[role]) - max(early[role]) for role in last},
        "samples": [{"seconds": seconds, **sizes} for seconds, sizes in flying],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure start-up time and memory of a training run.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to train")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = observe(options.seconds, Path(folder) / "run")
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}))
    write_text(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
