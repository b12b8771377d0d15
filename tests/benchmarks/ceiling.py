"""The ceiling of training throughput: LunarLander-v3 on two cores with nothing but random actions.

python -m tests.benchmarks.ceiling --seconds 10 --out ceiling.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import envpool
import gymnasium
import numpy as np

from actors.files import write_text

ENV_ID = "LunarLander-v3"
WARM_UP_SECONDS = 1.0
"""Long enough for the first episodes, which all start together, to end at different times."""

START_SECONDS = 120.0
"""How long a process waits for the others to be ready before it gives up."""


@dataclass(frozen=True)
class Layout:
    """One way to spend two cores on environments."""

    backend: str
    """Either envpool or gymnasium."""
    processes: int
    threads: int
    """Threads of each process."""
    num_envs: int
    """Environments of each process."""


LAYOUTS = (
    Layout("envpool", processes=2, threads=1, num_envs=64),
    Layout("envpool", processes=1, threads=2, num_envs=128),
    Layout("gymnasium", processes=2, threads=1, num_envs=64),
)


def make_envs(layout: Layout, seed: int) -> Any:
    """A vector environment; both back ends reset on the step after a done one."""
    if layout.backend == "envpool":
        return envpool.make(
            ENV_ID, env_type="gymnasium", num_envs=layout.num_envs, num_threads=layout.threads, seed=seed
        )
    envs = gymnasium.make_vec(ENV_ID, num_envs=layout.num_envs, vectorization_mode="sync")
    envs.reset(seed=seed)
    return envs


def steps_per_second(envs: Any, num_envs: int, seconds: float, seed: int) -> float:
    """Real steps per second over about `seconds`; the step that only resets an environment is not one."""
    generator = np.random.default_rng(seed)
    envs.reset()
    resetting = np.zeros(num_envs, dtype=bool)

    def fly(duration: float) -> float:
        nonlocal resetting
        steps = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < duration:
            _, _, terminated, truncated, _ = envs.step(generator.integers(4, size=num_envs))
            steps += num_envs - int(resetting.sum())
            resetting = terminated | truncated
        return steps / elapsed

    fly(WARM_UP_SECONDS)
    return fly(seconds)


def measure(layout: Layout, seconds: float, seed: int) -> float:
    """Steps per second of the whole layout, its processes flying at the same time."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(layout.processes)
    rates: SimpleQueue[float] = context.SimpleQueue()
    processes = [
        context.Process(target=_fly_in_process, args=(layout, seconds, seed + index, ready, rates))
        for index in range(layout.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"a process of {layout} ended with exit code {process.exitcode}")
    return sum(rates.get() for _ in processes)


def _fly_in_process(layout: Layout, seconds: float, seed: int, ready: Barrier, rates: SimpleQueue[float]) -> None:
    envs = make_envs(layout, seed)
    ready.wait(timeout=START_SECONDS)
    rates.put(steps_per_second(envs, layout.num_envs, seconds, seed))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure how fast the environments alone go on two cores.")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each measurement")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments and of the actions")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    rates: dict[Layout, float] = {}
    for layout in LAYOUTS:
        rates[layout] = measure(layout, options.seconds, options.seed)
        print(f"{rates[layout]:10,.0f} steps/s  {layout}", flush=True)
    result = {
        "env": ENV_ID,
        "seconds": options.seconds,
        "seed": options.seed,
        "envpool_version": envpool.__version__,
        "gymnasium_version": gymnasium.__version__,
        "steps_per_second": best_of(rates, "envpool"),
        "gymnasium_steps_per_second": best_of(rates, "gymnasium"),
        "layouts": [{**asdict(layout), "steps_per_second": rate} for layout, rate in rates.items()],
    }
    write_text(options.out, json.dumps(result, indent=2) + "\n")


def best_of(rates: Mapping[Layout, float], backend: str) -> float:
    """The greatest rate among the layouts of `backend`."""
    return max(rate for layout, rate in rates.items() if layout.backend == backend)


if __name__ == "__main__":
    main()
