"""Ray nodes on machines: ``ray start`` on each, the head at 10.0.0.1."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.laptop import QUICK_TO_NOTICE
from tests.cluster.machines import Machine, Network

HEAD = "10.0.0.1"
RAY = str(Path(sys.executable).with_name("ray"))

NOTICE = QUICK_TO_NOTICE | {"RAY_health_check_failure_threshold": "10"}
"""A little slower than cluster/*.yaml sets on the head: where tests run, live nodes can be silent for long."""

UNHURRIED = {"RAY_health_check_failure_threshold": "1000"}
"""Of a head that has to lose no machine: on a busy one the nodes that a new head takes over are slow to find it."""

PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""For which nodes do without a head; Ray's own setting is a minute. Commands set it for themselves."""


def start_node(network: Network, role: str, address: str, env: Mapping[str, str] | None = None) -> Machine:
    """A machine with that label; the head has the address 10.0.0.1."""
    machine = network.add(f"{role}-{address}", address)
    head = ["--head", "--port=6379", "--include-dashboard=false", "--no-monitor"]
    where = head if role == "head" else [f"--address={HEAD}:6379"]
    cpus = "1" if role == "actor" else "0"
    options = [f"--node-ip-address={address}", f"--num-cpus={cpus}", f"--labels=role={role}", "--block"]
    options += ["--object-store-memory=100000000", "--include-log-monitor=false"]
    machine.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of this test"}
    again = ["bash", "-c", 'until "$@"; do :; done', "bash"]  # Ray gives its own agents no longer than 15 s to start
    with log_of(machine).open("w") as log:
        machine.start([*again, RAY, "start", *where, *options], env, stdout=log, stderr=log)
    return machine


def log_of(machine: Machine) -> Path:
    """What ``ray start`` says there."""
    return machine.disk.with_name(f"{machine.name}.log")


def unplug(machine: Machine) -> None:
    """No connection is ended, nobody is told."""
    if machine.alive:
        machine.run(["ip", "link", "set", "eth0", "down"])
        machine.kill()
