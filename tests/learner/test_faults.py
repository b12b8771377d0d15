"""Faults of a cluster, on real Ray nodes: what is lost is flown again, and a run always goes on."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from learner.checkpoint import load_checkpoint
from learner.metrics_log import read_metrics
from learner.run_directory import RunDirectory
from tests.learner.driver import FOR_EVER, Driver
from tests.serve.served import wait_for

HEAD = {"num_cpus": 0, "labels": {"role": "head"}}
WORKER = {"num_cpus": 1, "labels": {"role": "actor"}}

COMMAND = [*FOR_EVER, "--learner-labels", "role", "head"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that flies nothing, and two nodes of one CPU."""
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    cluster.add_node(**WORKER)
    cluster.add_node(**WORKER)
    yield cluster
    cluster.shutdown()


def start(cluster: Cluster, run_dir: Path, *arguments: str) -> Driver:
    process = subprocess.Popen(
        [sys.executable, "-m", "learner.train", *arguments],
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Driver(process, run_dir)


@pytest.fixture
def driver(cluster: Cluster, tmp_path: Path) -> Iterator[Driver]:
    driver = start(cluster, tmp_path / "run", *COMMAND, "--run-dir", str(tmp_path / "run"))
    yield driver
    driver.kill()


def check_consistent(rows: list[dict[str, Any]]) -> None:
    """Every update once and in order, each from a whole batch of 1,024 steps, resets among them."""
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    totals = [0, *(row["time/total_timesteps"] for row in rows)]
    assert all(800 < after - before <= 1024 for before, after in itertools.pairwise(totals))


def test_nodes_come_and_go(cluster: Cluster, driver: Driver) -> None:
    """One is lost at once, one is told to end (a spot notice), and others take their places."""
    driver.wait_for_actors(2)
    for graceful in (False, True):
        lost = list(cluster.worker_nodes)[-1]
        cluster.remove_node(lost, allow_graceful=graceful)
        assert driver.wait_for_actors(1) < 10
        driver.wait_for_updates(10)
        cluster.add_node(**WORKER)
        driver.wait_for_actors(2)
        driver.wait_for_updates(10)
    said = driver.finish()
    assert "died; replacing it" in said
    assert "the learner died" not in said
    check_consistent(driver.rows())


FORKING = """
import json, os, sys
import learner.events, learner.train  # once: a driver is then there in two seconds, not in six
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        learner.train.main(json.loads(line))
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_a_driver_killed_twenty_times_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """At random moments, most of them while something is being written."""
    rng = random.Random(0)
    run_dir = tmp_path / "run"
    command = [*COMMAND, "--run-dir", str(run_dir), "--go-on"]

    def rows() -> list[dict[str, Any]]:
        return read_metrics(run_dir / "metrics.jsonl")

    reached = []
    with subprocess.Popen(
        [sys.executable, "-c", FORKING],
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as drivers:
        assert drivers.stdin
        assert drivers.stdout
        for _ in range(20):
            done = len(rows())
            print(json.dumps(command), file=drivers.stdin, flush=True)
            pid = int(drivers.stdout.readline())
            wait_for(lambda done=done: len(rows()) > done + 2, "a driver starts")
            time.sleep(rng.uniform(0, 0.3))  # the random moment
            os.kill(pid, signal.SIGKILL)
            assert drivers.stdout.readline() == "-9\n"
            state, counters = load_checkpoint(RunDirectory(run_dir).checkpoints)
            reached.append(counters["total_timesteps"])
            if version := int(state["version"]):
                assert counters["total_timesteps"] == rows()[version - 1]["time/total_timesteps"]
        drivers.stdin.close()
    assert reached == sorted(reached)
    assert reached[-1] > reached[0]
    last = start(cluster, run_dir, *command)
    last.wait_for_updates(5)
    last.finish()
    check_consistent(last.rows())
