"""Faults of a cluster, on real Ray nodes: what is lost is flown again, and a run always goes on."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from learner.keeping.checkpoint import has_checkpoint, load_checkpoint
from learner.keeping.metrics_log import read_metrics
from learner.run.run_directory import RunDirectory
from learner.run.run_recorder import Checkpoint, RunRecorder
from tests.conftest import AddNode
from tests.learner.driver import FOR_EVER, Driver
from tests.serve.served import PATIENCE, wait_for

ON_THE_HEAD = ["--learner-labels", "role", "head"]

Start = Callable[..., Driver]


@pytest.fixture
def start(joined: None) -> Iterator[Start]:
    """Starts drivers on the shared cluster, by the directory of the run and options."""
    drivers: list[Driver] = []

    def begin(run_dir: Path, *options: str) -> Driver:
        command = [sys.executable, "-m", "learner.train", *options, "--run-dir", str(run_dir)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        drivers.append(Driver(process, run_dir))
        return drivers[-1]

    yield begin
    for driver in drivers:
        if driver.process.poll() is None:
            driver.kill()


def check_consistent(rows: list[dict[str, Any]]) -> None:
    """Every update once and in order, each from a whole batch of 128 steps, resets among them."""
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    totals = [0, *(row["time/total_timesteps"] for row in rows)]
    assert all(90 < after - before <= 128 for before, after in itertools.pairwise(totals))


def test_nodes_come_and_go(start: Start, add_node: AddNode, tmp_path: Path) -> None:
    """One is lost at once, another takes its place, and one is told to end (a spot notice)."""
    first, second = add_node(1, role="actor"), add_node(1, role="actor")
    driver = start(tmp_path, *FOR_EVER, *ON_THE_HEAD)
    driver.wait_for_actors(2)
    first.kill()
    driver.wait_for_actors(1)
    driver.wait_for_updates(10)
    add_node(1, role="actor")
    driver.wait_for_actors(2)
    second.terminate()
    driver.wait_for_actors(1)
    driver.wait_for_updates(10)
    said = driver.finish()
    assert "died; replacing it" in said
    assert "the learner died" not in said
    check_consistent(driver.rows())


def test_actors_leave_a_node_that_will_be_taken(start: Start, add_node: AddNode, tmp_path: Path) -> None:
    """A spot machine's notice: they end what they fly, others begin elsewhere, and nothing has died."""

    def taking() -> list[dict[str, Any]]:
        return [it for it in ray.nodes() if it["Alive"] and it["Labels"].get("role") == "actor"]

    wait_for(lambda: not taking(), "the nodes of tests before are known to be gone", PATIENCE)
    doomed = add_node(1, role="actor")
    driver = start(tmp_path, *FOR_EVER, *ON_THE_HEAD, "--actors", "2")
    driver.wait_for_actors(1)
    (node,) = taking()
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    add_node(1, role="actor")
    driver.wait_for_actors(2)
    end = int(1000 * (time.time() + 600))
    assert gcs.drain_node(node["NodeID"], DRAIN_NODE_REASON_PREEMPTION, "a notice", end)[0]
    driver.wait_for_actors(1)
    driver.wait_for_updates(10)
    doomed.kill()
    add_node(1, role="actor")
    driver.wait_for_actors(2)
    driver.wait_for_updates(10)
    said = driver.finish()
    assert "leaves a machine that will be taken" in said
    assert "died; replacing it" not in said
    rows = driver.rows()
    check_consistent(rows)
    assert (rows[-1]["rollout/actor_restarts"], rows[-1]["rollout/dropped"]) == (0, 0)


def test_a_large_policy_is_lost_with_the_learners_node(start: Start, add_node: AddNode, tmp_path: Path) -> None:
    """The object store of that node held it. The actors are well, and the run goes on with a learner elsewhere."""
    home = add_node(0, role="learner")
    options = ["--actor-labels", "role", "head", "--learner-labels", "role", "learner", "--hidden-sizes", "256", "256"]
    driver = start(tmp_path, *FOR_EVER, *options)
    driver.wait_for_actors(2)
    for lost in range(2):
        driver.wait_for_updates(5)
        home.kill()
        home = add_node(0, role="learner")
        driver.wait(lambda rows, lost=lost: bool(rows) and rows[-1]["rollout/learner_restarts"] > lost)
    said = driver.finish()
    rows = driver.rows()
    check_consistent(rows)
    assert "the learner died; going on" in said
    assert rows[-1]["rollout/learner_restarts"] == 2
    assert rows[-1]["rollout/actor_restarts"] == 0


def stop(pid: int) -> None:
    """Stop a process between two instructions of each of its threads, as SIGKILL would."""
    os.kill(pid, signal.SIGSTOP)

    def stopped() -> bool:
        try:
            return all(b") T" in (it / "stat").read_bytes() for it in Path(f"/proc/{pid}/task").iterdir())
        except (FileNotFoundError, ProcessLookupError):  # a thread was just about to end
            return False

    wait_for(stopped, "all its threads stop", 120)


def newest_checkpoint(run_dir: Path) -> str:
    """Its name; empty: there is none yet."""
    return max((path.name for path in run_dir.glob("checkpoints/[0-9]*")), default="")


def check_goes_on(run_dir: Path) -> float:
    """What a driver left can be gone on from; returns the steps of its checkpoint."""
    directory = RunDirectory(run_dir)
    last = None
    if has_checkpoint(directory.checkpoints):  # the first one comes after the first rows, if the disk is slow
        state, counters = load_checkpoint(directory.checkpoints)
        last = Checkpoint(int(state["version"]), state, counters)
    RunRecorder(directory, 3, last).close()
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert len(rows) == (last.version if last else 0)
    check_consistent(rows)
    steps = float(last.counters["total_timesteps"] if last else 0)
    assert steps == (rows[-1]["time/total_timesteps"] if rows else 0)
    return steps


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_drivers_killed_at_thirty_moments_go_on(start: Start, tmp_path: Path) -> None:
    """Random ones, most of them while something is being written. Two are kills; at 14 more before each the driver is
    stopped for as long as what it has written is copied, which is what a kill would have left."""
    rng = random.Random(0)
    run_dir = tmp_path / "run"
    command = [*FOR_EVER, "--actor-labels", "role", "head", *ON_THE_HEAD, "--go-on"]
    reached = []
    for _ in range(2):
        begun = newest_checkpoint(run_dir)
        driver = start(run_dir, *command)
        for moment in range(15):
            driver.wait_for_updates(1)
            if moment == 14:  # each goes further than the one before, however slow the disk is
                driver.wait(lambda _, begun=begun: newest_checkpoint(run_dir) > begun)
            time.sleep(rng.uniform(0, 0.3))  # the random moment
            stop(driver.process.pid)
            left = shutil.copytree(run_dir, tmp_path / "copies" / str(len(reached)))
            if moment == 14:
                driver.kill()
            else:
                driver.process.send_signal(signal.SIGCONT)
            reached.append(check_goes_on(left))
    assert reached == sorted(reached)
    assert reached[-1] > reached[0]
    last = start(run_dir, *command)
    last.wait_for_updates(5)
    last.finish()
    check_consistent(last.rows())
