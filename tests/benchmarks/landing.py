"""What ``make run`` hands over: its own command with ten seeds, and 200 fresh landings of each policy.

python -m tests.benchmarks.landing --seeds 10
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import tyro

from actors.files import write_text
from actors.policy import Policy
from learner.run.run_directory import versions
from tests.benchmarks.solving import fly

RESULTS = Path(__file__).parent / "results"
FIRST_SEED = 50_000_000
"""Of the landings: training, its evaluations and the final score use others."""
THRESHOLD = 200.0


@dataclasses.dataclass(frozen=True)
class Landing:
    """Measure what `make run` hands over; writes tests/benchmarks/results/landing.md."""

    seeds: int = 10
    """Runs, with the seeds 0, 1, …"""
    landings: int = 200
    """Greedy Gymnasium episodes of each run's policy."""


def command(run_dir: Path, seed: int) -> list[str]:
    """The training that ``make run`` starts, with this seed, without its score and film."""
    arguments = f"--seed {seed} --evaluate-episodes 0 --no-video"
    printed = subprocess.run(
        ["make", "--no-print-directory", "-n", "run", f"RUN_DIR={run_dir}", f"ARGS={arguments}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = (line for line in printed.replace("\\\n", " ").splitlines() if "learner.train" in line)
    return shlex.split(line)


def measure(run_dir: Path, seed: int, landings: int) -> dict[str, Any]:
    """One run, and its policy's landings."""
    began = time.monotonic()
    subprocess.run(command(run_dir, seed), check=True)
    wall = time.monotonic() - began
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    returns = fly(Policy.load(run_dir / "policy"), landings, FIRST_SEED + seed * landings)
    return {
        "seed": seed,
        "seconds": rows[-1]["time/time_elapsed"],
        "seconds_with_start": wall,
        "steps": rows[-1]["time/total_timesteps"],
        "evaluations": sum("eval/mean_reward" in row for row in rows),
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "worst": float(returns.min()),
        "share": float((returns >= THRESHOLD).mean()),
    }


def markdown(runs: list[dict[str, Any]], options: Landing) -> str:
    """The runs as a table."""
    machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# What `make run` hands over",
        "",
        f"`python -m tests.benchmarks.landing --seeds {options.seeds} --landings {options.landings}`",
        f"on {machine}; {found}.",
        f"{options.landings} greedy Gymnasium episodes of each policy, from seeds that nothing before had flown.",
        "",
        "| seed | training, s | with start, s | steps | evaluated | mean ± std | worst | at 200 or more |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        lines.append(
            f"| {run['seed']} | {run['seconds']:.1f} | {run['seconds_with_start']:.1f} | {run['steps']:,} "
            f"| {run['evaluations']} | {run['mean']:.1f} ± {run['std']:.1f} | {run['worst']:.1f} | {run['share']:.1%} |"
        )
    middle = {name: statistics.median(run[name] for run in runs) for name in ("seconds", "seconds_with_start", "steps")}
    lines.append(
        f"| median | {middle['seconds']:.1f} | {middle['seconds_with_start']:.1f} | {middle['steps']:,.0f} | | "
        f"lowest {min(run['mean'] for run in runs):.1f} | | lowest {min(run['share'] for run in runs):.1%} |"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    options = tyro.cli(Landing, prog="python -m tests.benchmarks.landing", description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure(Path(folder) / f"seed-{seed}", seed, options.landings) for seed in range(options.seeds)]
    write_text(RESULTS / "landing.json", json.dumps(runs, indent=2) + "\n")
    write_text(RESULTS / "landing.md", markdown(runs, options))
    print((RESULTS / "landing.md").read_text())


if __name__ == "__main__":
    main()
