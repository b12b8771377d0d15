"""Machines that are lost, whole and without a word: a node, and the head with and without Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.machines import Machine, Network, needs_machines
from tests.learner.driver import FOR_EVER, Driver

pytestmark = needs_machines()

QUICK_TO_NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""As cluster/*.yaml sets them on the head."""

RAY = str(Path(sys.executable).with_name("ray"))
COMMAND = [*FOR_EVER, "--learner-labels", "role", "learner"]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network(tmp_path) as network:
        yield network


def start_node(network: Network, role: str, address: str, env: dict[str, str] | None = None) -> Machine:
    """A machine with that label; the head has the address 10.0.0.1."""
    machine = network.add(f"{role}-{address}", address)
    where = ["--head", "--port=6379", "--include-dashboard=false"] if role == "head" else ["--address=10.0.0.1:6379"]
    cpus = "1" if role == "actor" else "0"
    command = [RAY, "start", *where, f"--node-ip-address={address}", f"--num-cpus={cpus}", f"--labels=role={role}"]
    machine.environment["RAY_AUTH_MODE"] = "disabled"  # nobody else is on this network
    with (network.directory / f"{machine.name}.log").open("a") as log:
        machine.start([*command, "--object-store-memory=100000000", "--block"], env, stdout=log, stderr=log)
    return machine


def train(machine: Machine, run_dir: Path, *arguments: str) -> Driver:
    """A run whose driver is on that machine."""
    command = [sys.executable, "-m", "learner.train", *arguments]
    address = {"RAY_ADDRESS": "10.0.0.1:6379"}
    return Driver(machine.start(command, address, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE), run_dir)


def check_consistent(rows: list[dict[str, Any]]) -> None:
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))


def unplug(machine: Machine) -> None:
    """No connection is ended, nobody is told."""
    machine.run(["ip", "link", "set", "eth0", "down"])
    machine.kill()


def test_a_node_that_falls_silent_is_noticed_within_ten_seconds(network: Network, tmp_path: Path) -> None:
    start_node(network, "head", "10.0.0.1", QUICK_TO_NOTICE)
    learner = start_node(network, "learner", "10.0.0.2")
    _, silent = start_node(network, "actor", "10.0.0.3"), start_node(network, "actor", "10.0.0.4")
    driver = train(learner, tmp_path / "run", *COMMAND, "--run-dir", str(tmp_path / "run"))
    driver.wait_for_actors(2)
    unplug(silent)
    assert driver.wait_for_actors(1) < 10
    driver.wait_for_updates(20)
    start_node(network, "actor", "10.0.0.5")
    driver.wait_for_actors(2)
    driver.wait_for_updates(20)
    driver.kill()
    check_consistent(driver.rows())


@needs_machines("redis-server")
def test_with_redis_a_run_outlives_the_head(network: Network, tmp_path: Path) -> None:
    """The driver is on another machine; the new head finds in Redis what the old one knew."""
    store = network.add("store", "10.0.0.9")
    store.start(["redis-server", "--save", "", "--protected-mode", "no"], stdout=subprocess.DEVNULL)
    redis = {"RAY_REDIS_ADDRESS": "10.0.0.9:6379"}
    head = start_node(network, "head", "10.0.0.1", redis)
    learner = start_node(network, "learner", "10.0.0.2")
    start_node(network, "actor", "10.0.0.3")
    driver = train(learner, tmp_path / "run", *COMMAND, "--run-dir", str(tmp_path / "run"))
    driver.wait_for_updates(20)
    head.kill()
    driver.wait_for_updates(150)  # for seconds: those that fly and learn need no head
    start_node(network, "head", "10.0.0.1", redis)
    start_node(network, "actor", "10.0.0.4")
    driver.wait_for_actors(2)  # the new head takes nodes and gives out actors
    driver.wait_for_updates(20)
    driver.kill()
    check_consistent(driver.rows())


def test_without_redis_a_run_goes_on_on_a_new_cluster(network: Network, tmp_path: Path) -> None:
    """The driver, as a submitted job, is on the head, and all is lost but the run's directory."""
    arguments = [*COMMAND, "--run-dir", str(tmp_path / "run")]
    done = 0
    for attempt in range(2):
        head = start_node(network, "head", "10.0.0.1")
        others = [start_node(network, "learner", "10.0.0.2"), start_node(network, "actor", "10.0.0.3")]
        driver = train(head, tmp_path / "run", *arguments)
        driver.wait(lambda rows, least=done: len(rows) >= least + 30)
        driver.kill()
        done = len(driver.rows())
        for machine in (head, *others):
            unplug(machine)
        arguments = ["--resume", str(tmp_path / "run"), "--no-video", "--evaluate-episodes", "0"]
        assert attempt or done >= 30
    check_consistent(driver.rows())
