"""What learning from recordings comes to, by the commands that a user gives: recording, dt for a return, bc, MuJoCo.

python -m tests.benchmarks.recordings --parts record acting dt bc hopper --seeds 0 1 2

Wall times are of whole commands, Ray's start included; the machine should be idle.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as actors have it; read when numpy is imported

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from learner.keeping.policies import find_policy
from learner.run.spares import Spares
from tests.benchmarks.measures import measure

RESULTS = Path(__file__).parent / "results" / "recordings.json"
VERSIONS = (4, 8, 16, 24, 32, 40, 64, 96, 152)
"""Of the policies on the way of a ppo run, whose episodes are recorded beside those of its last one."""
TARGETS = (-100, 0, 100, 200, 250, 280)
EPISODES = 200
"""That a policy is scored by, for each target."""


@dataclasses.dataclass(frozen=True)
class Recordings:
    """Measure learning from recordings."""

    parts: tuple[str, ...] = ("record", "acting", "dt", "bc", "hopper")
    """record, acting, dt, bc, hopper."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of dt and bc."""
    directory: Path = Path("runs/recordings")
    """Where runs and datasets are, which are used again."""


def command(module: str, *arguments: object) -> float:
    """Seconds that a command takes.

    Raises:
        CalledProcessError: it fails.
    """
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def source(directory: Path, env: str, steps: int) -> Path:
    """A ppo run that keeps policies on its way."""
    run = directory / f"ppo-{env}"
    if not (run / "result.json").exists():
        options = ("--keep-every", 4, "--total-timesteps", steps, "--no-video", "--evaluate-episodes", 0)
        command("learner.train", "--preset", "ppo", "--env", env, *options, "--run-dir", run)
    return run


def record(directory: Path) -> dict[str, Any]:
    """2,000 episodes of ten policies."""
    run, dataset = source(directory, "LunarLander-v3", 800_000), directory / "lander"
    policies = [f"{run}@{version}" for version in VERSIONS]
    subprocess.run(["rm", "-rf", dataset], check=True)
    seconds = command("learner.record", *policies, run, "--episodes", 2000, "--to", dataset)
    return {"seconds": seconds, **figures_of(dataset)}


def figures_of(dataset: Path) -> dict[str, Any]:
    """What is recorded, and its size."""
    from learner.dataset.dataset import open_dataset

    opened = open_dataset(dataset)
    size = sum(file.stat().st_size for file in dataset.rglob("*") if file.is_file())
    return {**opened.summary(), "bytes_per_step": size / opened.num_steps}


def trained(directory: Path, preset: str, seed: int, dataset: Path, *options: object) -> tuple[Path, float]:
    """A run that learned from recordings, and its seconds, without a score on the way."""
    run = directory / f"{preset}-{dataset.name}-{seed}"
    subprocess.run(["rm", "-rf", run], check=True)
    plain = ("--seed", seed, "--no-video", "--evaluate-episodes", 0, "--eval-every", "None")
    return run, command("learner.train", "--preset", preset, "--dataset", dataset, "--run-dir", run, *plain, *options)


def achieved(run: Path, targets: tuple[float, ...]) -> dict[str, Any]:
    """Mean and standard deviation of episodes on Gymnasium for each of the returns that are asked for."""
    command("learner.evaluate", run, "--episodes", EPISODES, "--target-return", *targets)
    scores = json.loads((run / "targets.json").read_text())
    return {f"{score['target_return']:g}": [score["mean_reward"], score["std_reward"]] for score in scores}


def dt(directory: Path, seed: int) -> dict[str, Any]:
    """A Decision Transformer of the recorded episodes, asked for each of the targets."""
    run, seconds = trained(directory, "dt", seed, directory / "lander")
    return {"seconds": seconds, "targets": achieved(run, TARGETS)}


def bc(directory: Path, seed: int) -> dict[str, Any]:
    """The best tenth, imitated: greedy and sampled."""
    run, seconds = trained(directory, "bc", seed, directory / "lander", "--best-share", 0.1)
    scores = {}
    for how in ("--deterministic", "--no-deterministic"):
        command("learner.evaluate", run, "--episodes", EPISODES, how)
        score = json.loads((run / "evaluation.json").read_text())
        scores[how.strip("-")] = [score["mean_reward"], score["std_reward"]]
    return {"seconds": seconds, **scores}


def hopper(directory: Path, seed: int) -> dict[str, Any]:
    """A Decision Transformer of our own ppo's episodes on MuJoCo's Hopper, for half and full return."""
    run, dataset = source(directory, "Hopper-v5", 500_000), directory / "hopper"
    if not dataset.exists():
        kept = sorted(int(path.name) for path in (run / "versions").iterdir())
        policies = [f"{run}@{version}" for version in kept[:: max(1, len(kept) // 9)]]
        command("learner.record", *policies, run, "--episodes", 1000, "--to", dataset)
    figures = figures_of(dataset)
    full = find_asked(dataset)
    trained_run, seconds = trained(directory, "dt", seed, dataset)
    return {"seconds": seconds, **figures, "targets": achieved(trained_run, (full / 2, full))}


def find_asked(dataset: Path) -> float:
    """The return to ask for: the mean of the best tenth."""
    from learner.dataset.dataset import open_dataset

    return round(open_dataset(dataset).asked)


def acting(directory: Path) -> dict[str, Any]:
    """Microseconds of one core that a Decision Transformer takes an environment's step, 64 at a time."""
    policy, rng = find_policy(directory / "dt-lander-0"), np.random.default_rng(0)
    observations = rng.standard_normal((64, *policy.spec.observation.shape), np.float32)
    noise, memory, rewards = policy.distribution.noise(rng, (64,)), policy.start(64), np.zeros(64, np.float32)
    for count in (100, 2000):
        start = time.process_time()
        for _ in range(count):
            memory = policy.rewarded(policy.step(observations, memory, noise).memory, rewards)
    return {"microseconds": (time.process_time() - start) / (64 * count) * 1e6}


def main() -> None:
    """Measure, and write recordings.json after each."""
    options = tyro.cli(Recordings, prog="python -m tests.benchmarks.recordings", description=__doc__)
    directory = options.directory

    def once(what: Any) -> Any:
        return lambda _seed, _spares: what(directory)

    def by_seed(what: Any) -> Any:
        def run(seed: int, _spares: Spares) -> dict[str, Any]:
            figures: dict[str, Any] = what(directory, seed)
            return figures

        return run

    measures = {"record": once(record), "acting": once(acting), "dt": by_seed(dt), "bc": by_seed(bc)}
    measures["hopper"] = by_seed(hopper)
    for part in options.parts:
        seeds = options.seeds if part in ("dt", "bc") else options.seeds[:1]
        measure(RESULTS, measures, [part], seeds)


if __name__ == "__main__":
    main()
