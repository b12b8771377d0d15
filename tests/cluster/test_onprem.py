"""``cluster/onprem.yaml`` through real SSH, with nothing changed but the machines' addresses, the user and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.laptop import Laptop, check_run, patient
from tests.cluster.machines import REPOSITORY, Network, needs_machines
from tests.cluster.ssh_machines import add_ssh_machine, key_pair
from tests.serve.served import wait_for

HEAD, GPU, CPU = "10.1.0.1", "10.1.0.2", "10.1.0.3"
NVIDIA_SMI = '#!/bin/sh\necho "GPU 0: Imagined (UUID: GPU-0)"\n'


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_machines("sshd", "ssh", "rsync")
def test_machines_of_ones_own_become_a_cluster_that_trains(tmp_path: Path) -> None:
    file = yaml.safe_load(patient((REPOSITORY / "cluster/onprem.yaml").read_text()))
    file["provider"] |= {"head_ip": HEAD, "worker_ips": [GPU, CPU]}
    file["auth"] = {"ssh_user": "pilot", "ssh_private_key": str(tmp_path / "key")}
    (tmp_path / "onprem.yaml").write_text(yaml.safe_dump(file))
    key = key_pair(tmp_path / "key")
    with Network(tmp_path / "network", shared=[tmp_path]) as network:
        for name, address in (("head", HEAD), ("gpu", GPU), ("cpu", CPU)):
            programs = {"nvidia-smi": NVIDIA_SMI} if name == "gpu" else {}
            add_ssh_machine(network, name, address, key=key, user="pilot", programs=programs)
        laptop = Laptop(network, tmp_path / "onprem.yaml", {"RAY_UP_enable_autoscaler_v2": "0"})
        laptop.up()
        run = tmp_path / "run"
        assert laptop.train(run) == {"LearnerActor": {GPU}, "RolloutActor": {CPU}}
        check_run(run)
        laptop.ray("down", "-y", timeout=400)
        # The workers miss their head within a minute, which is too long to wait for here.
        head = network.machines["head"]
        wait_for(lambda: "raylet" not in head.run(["ps", "-eo", "comm"]).stdout, "Ray has ended on the head", 120)
