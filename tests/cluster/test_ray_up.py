"""``ray up cluster/gpu.yaml``, all but as it is: from nothing to a training run and back, without a cloud."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.fake_aws import CREDENTIALS, PORT
from tests.cluster.laptop import Laptop, check_run, patient
from tests.cluster.machines import REPOSITORY, Network, needs_machines
from tests.cluster.ssh_machines import add_ssh_machine
from tests.serve.served import wait_for

AWS = "192.0.2.1"
FILE = yaml.safe_load((REPOSITORY / "cluster/gpu.yaml").read_text())
TYPES = {kind["node_config"]["InstanceType"]: name for name, kind in FILE["available_node_types"].items()}
ACCESS = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{AWS}:{PORT}"}


class Cloud:
    """AWS as moto plays it, and a machine on the network for every instance that runs."""

    def __init__(self, network: Network, region: str) -> None:
        self.network = network
        self.instances: dict[str, dict[str, Any]] = {}
        """What AWS tells of each, the ended ones too."""
        self._aws = network.add("aws", AWS)
        with (network.directory / "moto.log").open("w") as log:
            command = [sys.executable, "-m", "tests.cluster.fake_aws", region]
            self._events = self._aws.start(command, stdout=subprocess.PIPE, stderr=log)
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        assert self._serving.wait(180), "moto serves"

    def _follow(self) -> None:
        for line in self._events.stdout:
            event = json.loads(line)
            if "serving" in event:
                self._serving.set()
                continue
            name = event["id"]
            self.instances[name] = event
            if event["state"] == "running":
                add_ssh_machine(
                    self.network, name, event["private"], event["public"], key=event["key"], variables=ACCESS
                )
            elif name in self.network.machines:
                self.network.machines[name].kill()

    def running(self) -> dict[str, set[str]]:
        """The private addresses of the instances that run, by the types that the cluster's file names."""
        running: dict[str, set[str]] = {}
        for instance in list(self.instances.values()):  # more may come meanwhile
            if instance["state"] == "running":
                running.setdefault(TYPES[instance["type"]], set()).add(instance["private"])
        return running

    def close(self) -> None:
        """End it, and wait for what it does."""
        self._aws.kill()
        self._thread.join(60)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with (
        Network(tmp_path / "network") as network,
        contextlib.closing(Cloud(network, FILE["provider"]["region"])) as cloud,
    ):
        yield cloud


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_machines("sshd", "ssh", "rsync")
def test_a_cluster_on_aws_comes_from_nothing_trains_and_goes_back_to_nothing(cloud: Cloud) -> None:
    file = cloud.network.directory / "gpu.yaml"
    over = cloud.network.directory / "deadline"
    text = patient((REPOSITORY / "cluster/gpu.yaml").read_text())
    text = re.sub(r"^  # (?=- >-|  kill |  > ~/deadline)", "  ", text, flags=re.MULTILINE)  # the option of a deadline
    file.write_text(text.replace("sleep 172800", f"until [ -e {over} ]; do sleep 1; done"))
    laptop = Laptop(cloud.network, file, ACCESS)
    laptop.up()
    assert "actor" not in cloud.running()
    run = cloud.network.directory / "run"
    # The two actors that are of use, of eight CPUs each, fill one spot machine of 16; more would only crowd this one.
    placed = laptop.train(run, "--cpus-per-actor", "8", "--rollouts-per-update", "1")
    machines = cloud.running()
    assert {kind: len(addresses) for kind, addresses in machines.items()} == {"head": 1, "learner": 1, "actor": 1}
    assert placed == {"LearnerActor": machines["learner"], "RolloutActor": machines["actor"]}
    check_run(run)
    assert {TYPES[instance["type"]] for instance in cloud.instances.values() if instance["spot"]} == {"actor"}

    over.touch()  # as if its two days were over: the head takes the cluster down, itself last
    wait_for(lambda: not cloud.running(), "all instances have ended", 400)
