"""``make bench``: all measurements in one run on one machine, and a table of ratios.

Each part runs as a process of its own with nothing beside it, so that they can be compared; close what else runs.
A part whose result is there already is not run again: delete its file in the work folder, or give another folder.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import tyro

from actors.files import write_text
from actors.policy import Policy
from learner.run.evaluation import summarise
from learner.run.run_directory import versions
from tests.benchmarks.report import markdown
from tests.benchmarks.solving import first_solved, fly

RESULTS = Path(__file__).parent / "results"
PRECISE = Path("tune_configs/best/LunarLander-v3.json")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure Touchdown against RLlib and Stable-Baselines3; writes tests/benchmarks/results."""

    work: Path = Path("runs/bench")
    """Where the parts leave their raw results and policies."""
    seeds: int = 5
    """Runs of ours to solve LunarLander."""
    peer_seeds: int = 1
    """Runs of each peer, likewise."""
    peer_seconds: float = 1200.0
    """When a peer that has not solved it is stopped."""
    peer_steps: int = 1_500_000
    """Likewise, in steps."""
    throughput_steps: int = 400_000
    """Throughput is steps a second over the first this many."""
    footprint_seconds: float = 60.0
    """How long memory is watched; an hour shows that it stays flat."""
    preset_seeds: int = 1
    """Runs of each preset on Beresheet-v2."""


def part(options: Bench, module: str, name: str, *arguments: object) -> Path:
    """Run ``python -m tests.benchmarks.<module>`` unless its result is there; returns the result's path."""
    out = options.work / f"{name}.json"
    if not out.exists():
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments), "--out", str(out)]
        print(f"--- {name}: {' '.join(command[1:])}", flush=True)
        subprocess.run(command, check=True)
    return out


def contestant(options: Bench, module: str, name: str, seed: int, *arguments: object) -> Path:
    """A training run that leaves snapshots; those of a run that was cut short are thrown away by its name."""
    snapshots = options.work / f"{name}-{seed}"
    return part(options, module, f"{name}-{seed}", "--seed", seed, "--snapshots", snapshots, *arguments)


def rate(result: Path, steps: int) -> float:
    """Steps a second over the first ``steps``, or over the whole run if it is shorter."""
    records = json.loads(result.read_text())["records"]
    record = next((record for record in records if record["steps"] >= steps), records[-1])
    return float(record["steps"] / record["seconds"])


def solve(result: Path) -> dict[str, Any]:
    """When that run had solved LunarLander (None: not before it was stopped), kept beside the result."""
    kept = result.with_suffix(".solved.json")
    if not kept.exists():
        print(f"--- {kept.stem}: flying its snapshots", flush=True)
        solved = first_solved(result, result.with_suffix(""))
        last = json.loads(result.read_text())["records"][-1]
        write_text(kept, json.dumps({"solved": solved, "stopped": last}) + "\n")
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def precise(options: Bench) -> dict[str, Any]:
    """The documented configuration's score over 1,000 episodes, and what it took."""
    out = options.work / "precise.json"
    run_dir = options.work / "precise"
    if not out.exists():
        arguments = ["--config", str(PRECISE), "--run-dir", str(run_dir), "--evaluate-episodes", "0", "--no-video"]
        subprocess.run([sys.executable, "-m", "learner.train", *arguments], check=True)
        last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
        score = summarise(fly(Policy.load(run_dir / "policy"), 1000), 200.0)
        figures = {"seconds": last["time/time_elapsed"], "steps": last["time/total_timesteps"], **score}
        write_text(out, json.dumps(figures) + "\n")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def measure(options: Bench) -> dict[str, Any]:
    """Run all parts, one after another."""
    limits = ("--max-seconds", options.peer_seconds, "--max-steps", options.peer_steps)
    short = ("--max-steps", options.throughput_steps)
    ceiling = json.loads(part(options, "ceiling", "ceiling").read_text())
    recipe = contestant(options, "ours", "ours_recipe", 0, "--settings", "recipe", *short)
    to_solve = ("--target-return", 230, "--max-steps", options.peer_steps)
    ours = [contestant(options, "ours", "ours", seed, *to_solve) for seed in range(options.seeds)]
    peers = {
        "sb3_no_render": ("peers.sb3_ppo", "--render-mode", "none"),
        "sb3_as_course": ("peers.sb3_ppo", "--render-mode", "rgb_array"),
        "rllib": ("peers.rllib_ppo",),
    }
    runs = {
        name: [
            contestant(options, module, name, seed, *arguments, *limits)
            for seed in range(options.peer_seeds if name == "sb3_no_render" else 1)
        ]
        for name, (module, *arguments) in peers.items()
    }
    footprint = json.loads(part(options, "footprint", "footprint", "--seconds", options.footprint_seconds).read_text())
    presets = json.loads(part(options, "presets_learn", "presets", "--seeds", options.preset_seeds).read_text())
    update = json.loads(part(options, "update", "update").read_text())
    return {
        "machine": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "versions": versions(),
        "throughput_steps": options.throughput_steps,
        "steps_per_second": {
            "ceiling": ceiling["steps_per_second"],
            "ceiling_gymnasium": ceiling["gymnasium_steps_per_second"],
            "ours": rate(recipe, options.throughput_steps),
            "ours_preset": statistics.median(rate(run, options.throughput_steps) for run in ours),
            **{
                name: statistics.median(rate(run, options.throughput_steps) for run in found)
                for name, found in runs.items()
            },
        },
        "to_solve": {
            "ours": [solve(run) for run in ours],
            **{name: [solve(run) for run in found] for name, found in runs.items()},
        },
        "precise": precise(options),
        "presets": presets["runs"],
        "footprint": {name: value for name, value in footprint.items() if name != "samples"},
        "update": update,
    }


def main() -> None:
    """Command line."""
    options = tyro.cli(Bench, prog="python -m tests.benchmarks.run", description=__doc__)
    options.work.mkdir(parents=True, exist_ok=True)
    figures = measure(options)
    write_text(RESULTS / "bench.json", json.dumps(figures, indent=2) + "\n")
    write_text(RESULTS / "bench.md", markdown(figures, " ".join(["python -m tests.benchmarks.run", *sys.argv[1:]])))
    print((RESULTS / "bench.md").read_text())


if __name__ == "__main__":
    main()
