"""``make bench-serve``: the service beside plain FastAPI and Ray Serve as it comes, in one run on one machine.

What is compared runs one after the other with nothing beside it but the load generator; close what else runs.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import tyro

from actors.files import write_text
from actors.policy import Policy, policy_directory
from learner.run.run_directory import versions
from serve.client import PolicyClient
from serve.service.request_limits import HttpConfig
from tests.benchmarks.serving.load import OBSERVATION, require_wrk, viewers, wrk
from tests.benchmarks.serving.report import markdown
from tests.benchmarks.serving.services import Running, started

RESULTS = Path(__file__).parents[1] / "results"


@dataclasses.dataclass(frozen=True)
class BenchServe:
    """Measure the service; writes tests/benchmarks/results/serve.md and serve.json."""

    policy: Path = Path("runs/first")
    """A run for LunarLander whose policy is served."""
    work: Path = Path("runs/bench-serve")
    """Where logs and policies to reload are put."""
    seconds: int = 10
    """Of load for each figure."""
    rounds: int = 3
    """Times that each figure is taken; the median counts."""
    churn_seconds: int = 60
    """Of load through reloads, a killed replica and scaling."""
    overload_seconds: int = 60
    """With ten times more clients than may wait."""
    viewers: int = 20
    """Of the page."""


def speed(running: Running, options: BenchServe) -> dict[str, Any]:
    """Throughput at 8 and at 64 clients, latency at one, actions/s in batches of 1,000."""
    one, many = {"observation": OBSERVATION}, {"observations": [OBSERVATION] * 1000}
    wrk(running.address, 64, 2, one)  # warm
    few = [wrk(running.address, 8, options.seconds, one) for _ in range(options.rounds)]
    crowd = [wrk(running.address, 64, options.seconds, one) for _ in range(options.rounds)]
    alone = [wrk(running.address, 1, options.seconds, one) for _ in range(options.rounds)]
    batch = [wrk(running.address, 1, options.seconds, many) for _ in range(options.rounds)]
    return {
        "failed": sum(found["refused"] + found["socket_errors"] for found in (*few, *crowd, *alone, *batch)),
        "requests_per_second_8": median(few, "requests_per_second"),
        "requests_per_second_64": median(crowd, "requests_per_second"),
        "p99_ms_64": median(crowd, "p99_ms"),
        "p50_ms_1": median(alone, "p50_ms"),
        "actions_per_second_batched": 1000 * median(batch, "requests_per_second"),
    }


def median(found: list[dict[str, float]], name: str) -> float:
    """Of one figure over the rounds."""
    return statistics.median(one[name] for one in found)


class Client:
    """One client of ours that asks all the time, in a thread: what does its user notice?"""

    def __init__(self, address: str) -> None:
        self.asked, self.noticed = 0, 0
        self.versions: set[int] = set()
        self._address, self._stop = address, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with PolicyClient(self._address) as client:
            while not self._stop.is_set():
                self.asked += 1
                try:
                    self.versions.add(client.act(OBSERVATION).version)
                except Exception as error:
                    self.noticed += 1
                    print(f"the client noticed: {error!r}", flush=True)

    def has_seen(self, version: int) -> bool:
        """Whether that version has answered."""
        return version in self.versions

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def churn(running: Running, policy: Policy, directory: Path, options: BenchServe) -> dict[str, Any]:
    """Every request counted while policies are replaced, replicas come and go, and one is killed.

    wrk tries nothing twice; the client beside it does, and its user must not notice anything.
    """
    replicas = running.replicas
    with Client(running.address) as client, ThreadPoolExecutor(1) as pool:
        load = pool.submit(wrk, running.address, 64, options.churn_seconds, {"observation": OBSERVATION})
        reloads = 3
        for version in range(policy.spec.version + 1, policy.spec.version + 1 + reloads):
            Policy(dataclasses.replace(policy.spec, version=version), policy.weights).save(directory)
            until(functools.partial(client.has_seen, version), 60)
            print(f"version {version} is served", flush=True)
        until(lambda: len(replicas()) == 2, 60)
        time.sleep(2)
        print("scaled up; killing a replica", flush=True)
        before = {replica.pid for replica in replicas()}
        replicas()[0].kill()
        until(lambda: len({replica.pid for replica in replicas()} - before) == 1, 60)
        print("another one has taken its place", flush=True)
        assert not load.done(), "the load ended before all had happened: give it more --churn-seconds"
        found = load.result()
        until(lambda: len(replicas()) == 1, 180)
        print("scaled down", flush=True)
    return {**found, "reloads": reloads, "asked": client.asked, "noticed": client.noticed}


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, that long at the most."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def overload(running: Running, seconds: int, clients: int) -> dict[str, Any]:
    """Ten times more clients than may wait; then how soon the next request is answered as ever."""
    wrk(running.address, clients, 5, {"observation": OBSERVATION})  # buffers grow to their size once
    before = running.megabytes()
    found = wrk(running.address, clients, seconds, {"observation": OBSERVATION})
    ended = time.monotonic()
    answered = httpx2.post(f"{running.address}/act", json={"observation": OBSERVATION}, timeout=30)
    recovery = time.monotonic() - ended
    after = running.megabytes()
    assert answered.is_success
    return {
        "clients": clients,
        "seconds": seconds,
        **found,
        "answered_per_second": (found["requests"] - found["refused"]) / seconds,
        "recovery_seconds": recovery,
        "megabytes_before": before,
        "megabytes_after": after,
    }


def measure(options: BenchServe) -> dict[str, Any]:
    """Run all parts, one after another."""
    options.work.mkdir(parents=True, exist_ok=True)
    directory = options.work / "policy"
    shutil.rmtree(directory, ignore_errors=True)
    policy = Policy.load(policy_directory(options.policy))
    policy.save(directory)
    figures: dict[str, Any] = {
        "machine": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "versions": versions(),
        "speed": {},
    }
    contestants: dict[str, tuple[Any, ...]] = {
        "plain": ("tests.benchmarks.serving.plain", directory),
        "serve_as_it_comes": ("tests.benchmarks.serving.stock", directory),
        "ours": ("serve.app", directory),
    }
    for name, (module, *arguments) in contestants.items():
        print(f"--- {name}", flush=True)
        with started(module, *arguments, log=options.work / f"{name}.log") as running:
            figures["speed"][name] = speed(running, options)
            if name == "ours":
                print("--- viewers", flush=True)
                figures["viewers"] = viewers(running.address, options.viewers, options.seconds)
                print("--- overload", flush=True)
                figures["overload"] = overload(running, options.overload_seconds, 10 * HttpConfig().max_waiting)
    print("--- churn", flush=True)
    scaled = ("--follow", "--max-replicas", 2, "--cpus-per-replica", 0.5)
    with started("serve.app", directory, *scaled, log=options.work / "churn.log") as running:
        figures["churn"] = churn(running, policy, directory, options)
    return figures


def main() -> None:
    """Command line."""
    options = tyro.cli(BenchServe, prog="python -m tests.benchmarks.serving.run", description=__doc__)
    require_wrk()
    figures = measure(options)
    command = " ".join(["python -m tests.benchmarks.serving.run", *sys.argv[1:]])
    write_text(RESULTS / "serve.json", json.dumps(figures, indent=2) + "\n")
    write_text(RESULTS / "serve.md", markdown(figures, command))
    print((RESULTS / "serve.md").read_text())


if __name__ == "__main__":
    main()
