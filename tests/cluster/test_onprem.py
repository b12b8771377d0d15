"""``cluster/onprem.yaml`` through real SSH, with nothing changed but the machines' addresses, the user and the key."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from tests.cluster.laptop import Laptop, check_run, patient
from tests.cluster.machines import REPOSITORY, Network, needs_machines
from tests.cluster.ssh_machines import add_ssh_machine, key_pair
from tests.serve.served import wait_for

HEAD, GPU, CPU = "10.1.0.1", "10.1.0.2", "10.1.0.3"
NVIDIA_SMI = '#!/bin/sh\necho "GPU 0: Imagined (UUID: GPU-0)"\n'


ANOTHER_PATCH = """
import collections, sys
Version = collections.namedtuple("Version", "major minor micro releaselevel serial")
sys.version_info = Version(*sys.version_info[:2], 99, *sys.version_info[3:])
"""
"""A sitecustomize.py: Python 3.11.99, say, on a machine beside others with 3.11.7."""


MINE = """
import os

import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import actors


class Mine(CartPoleEnv):
    def __init__(self) -> None:
        assert not actors.__file__.startswith(os.path.expanduser("~/touchdown")), "our changed code flies"
        super().__init__()


gymnasium.register("Mine-v0", Mine, max_episode_steps=500)
"""
"""An environment that nobody else has, and that flies with the code beside it alone."""

LEARNER = f"""
import sys, torch
from learner.optimisation.sharding import Shard, connect_by
rank, address = sys.argv[1:]
connect_by(address)
print(Shard(int(rank), 2, "{GPU}:5678").mean(torch.tensor([float(rank)]), 1).item())
"""
"""One of two learners on machines whose own names lead to 127.0.1.1, as Debian has it."""


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
        (tmp_path / "patched").mkdir()
        (tmp_path / "patched/sitecustomize.py").write_text(ANOTHER_PATCH)
        for name, address in (("head", HEAD), ("gpu", GPU), ("cpu", CPU)):
            programs = {"nvidia-smi": NVIDIA_SMI} if name == "gpu" else {}
            path = f"{tmp_path / 'patched'}:{sysconfig.get_path('purelib')}" if name == "cpu" else None
            variables = {"PYTHONPATH": path} if path else {}
            hosts = tmp_path / f"{name}.hosts"
            hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
            add_ssh_machine(
                network, name, address, key=key, user="pilot", programs=programs, variables=variables, hosts=hosts
            )
        laptop = Laptop(network, tmp_path / "onprem.yaml", {"RAY_UP_enable_autoscaler_v2": "0"})
        laptop.up()
        run, clone = tmp_path / "run", tmp_path / "clone"
        for package in ("actors", "learner", "cluster"):
            shutil.copytree(REPOSITORY / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
        (clone / "mine.py").write_text(MINE)
        assert laptop.train(run, env="mine:Mine-v0", clone=clone) == {"LearnerActor": {GPU}, "RolloutActor": {CPU}}
        check_run(run)
        learners = [
            network.machines[name].start([sys.executable, "-c", LEARNER, str(rank), address], stdout=subprocess.PIPE)
            for rank, (name, address) in enumerate((("gpu", GPU), ("cpu", CPU)))
        ]
        assert [learner.communicate(timeout=180)[0] for learner in learners] == ["0.5\n", "0.5\n"]
        laptop.ray("down", "-y", timeout=400)
        # The workers miss their head within a minute, which is too long to wait for here.
        head = network.machines["head"]
        wait_for(lambda: "raylet" not in head.run(["ps", "-eo", "comm"]).stdout, "Ray has ended on the head", 120)
