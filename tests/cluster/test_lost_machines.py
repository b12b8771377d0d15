"""Machines that are lost, whole and without a word: a node, the head, and all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.machines import Machine, Network, needs_machines
from tests.cluster.nodes import NOTICE, PATIENT, UNHURRIED, log_of, start_node, unplug
from tests.learner.driver import FOR_EVER, Driver
from tests.serve.served import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SECONDS = 400.0
"""That a run may take to do what it is to do; machines and Ray's nodes start in between."""

COMMAND = [*FOR_EVER, "--learner-labels", "role", "learner"]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network(tmp_path) as network:
        yield network


def train(machine: Machine, run_dir: Path, *arguments: str) -> Driver:
    """A run whose driver is on that machine, once its node has joined: the command gives a cluster half a minute."""
    log = log_of(machine)
    wait_for(lambda: "Ray runtime started" in log.read_text(), f"{machine.name} has joined", SECONDS, every=0.2)
    command = [sys.executable, "-m", "learner.train", *arguments]
    address = {"RAY_ADDRESS": "10.0.0.1:6379"}
    return Driver(machine.start(command, address, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE), run_dir)


def go_on(driver: Driver) -> None:
    done = len(driver.rows())
    driver.wait(lambda rows: len(rows) >= done + 20, SECONDS)


def check_consistent(rows: list[dict[str, Any]]) -> None:
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))


@needs_machines("redis-server")
def test_a_run_outlives_a_node_the_head_and_the_whole_cluster(network: Network, tmp_path: Path) -> None:
    """One after the other: to start a cluster for each takes longer than all the rest."""
    run_dir = tmp_path / "run"
    store = network.add("store", "10.0.0.9")
    store.start(["redis-server", "--save", "", "--protected-mode", "no"], stdout=subprocess.DEVNULL)
    redis = {"RAY_REDIS_ADDRESS": "10.0.0.9:6379"}
    head = start_node(network, "head", "10.0.0.1", redis | NOTICE)
    learner = start_node(network, "learner", "10.0.0.2", PATIENT)
    start_node(network, "actor", "10.0.0.3", PATIENT)
    silent = start_node(network, "actor", "10.0.0.4", PATIENT)
    driver = train(learner, run_dir, *COMMAND, "--run-dir", str(run_dir))
    driver.wait_for_actors(2, SECONDS)

    unplug(silent)
    driver.wait_for_actors(1, SECONDS)
    go_on(driver)

    # With Redis the new head knows what the old one knew.
    head.kill()
    at = driver.rows()[-1]["time/time_elapsed"]
    driver.wait(lambda rows: rows[-1]["time/time_elapsed"] > at + 70, SECONDS)  # those that fly and learn need no head
    start_node(network, "head", "10.0.0.1", redis | UNHURRIED)
    start_node(network, "actor", "10.0.0.5", PATIENT)
    driver.wait_for_actors(2, SECONDS)  # the new head takes nodes and gives out actors
    go_on(driver)
    driver.kill()
    rows = driver.rows()
    check_consistent(rows)

    # Without it all is lost but the run's directory. The driver, as a submitted job, is on the head.
    for machine in network.machines.values():
        unplug(machine)
    head = start_node(network, "head", "10.0.0.1", UNHURRIED)
    start_node(network, "learner", "10.0.0.2")
    start_node(network, "actor", "10.0.0.3")
    driver = train(head, run_dir, "--resume", str(run_dir), "--no-video", "--evaluate-episodes", "0")
    driver.wait(lambda now: len(now) >= len(rows) + 20, SECONDS)
    driver.kill()
    check_consistent(driver.rows())
