"""The cluster that is soaked: a bucket, a Redis, a head, a learner's machine, actors' machines, and one that serves.

Whoever makes it is on the bucket's machine, by the network: the store's own address, past all faults, is its loopback.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import boto3

from learner.keeping.storage import open_storage
from tests.cluster.laptop import QUICK_TO_NOTICE
from tests.cluster.machines import Machine, Network
from tests.cluster.nodes import HEAD, PATIENT, log_of, start_node, unplug
from tests.cluster.soak.clock import clock_variables
from tests.cluster.soak.memory import can_squeeze, confine, release
from tests.cluster.soak.patience import Patience
from tests.cluster.soak.supervised import Supervised
from tests.learner.link import Link
from tests.serve.served import wait_for

RUN = "s3://bucket/runs/soak"
STORE, LEARNER, SERVICE = "10.0.0.9", "10.0.0.2", "10.0.0.8"
SERVING = f"http://{SERVICE}:8000"
TOKEN = "a token of more than sixteen"
ACTORS = 2
"""Machines of actors, in peace."""
BATCH = 2 * 8 * 16
"""Steps of an update."""
CHECKPOINT_SECONDS = 2.0
_MOTO, _LINK = 5000, 9000
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_TRAIN = [
    *("--env", "tests.paced_environment:Paced-v0", "--n-envs", "8", "--n-steps", "16", "--rollouts-per-update", "2"),
    *("--total-timesteps", "500000000", "--no-video", "--evaluate-episodes", "0", "--eval-every", "None"),
    *("--checkpoint-seconds", f"{CHECKPOINT_SECONDS:g}", "--upload-seconds", "1", "--run-dir", RUN, "--go-on"),
    *("--actor-labels", "role", "actor", "--learner-labels", "role", "learner"),
]
_SERVE = [
    *("serve.app", RUN, "--follow", "--host", SERVICE, "--replicas", "2", "--cpus-per-replica", "0.25"),
    *("--module", "tests.paced_environment"),
]
_NOTICE = QUICK_TO_NOTICE | {"RAY_health_check_failure_threshold": "20"}
"""Half a minute to a minute until a silent machine is lost: on two cores live ones can be silent for long."""
_SECONDS = 1200.0
"""That each part of a cluster may take to come up, on however busy a machine."""


class Site:
    """All of it, up from ``__enter__`` to ``__exit__``.

    Args:
        directory: for the machines' disks and logs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = Network(directory)
        self._numbers = itertools.count(20)
        self.actors: list[Machine] = []
        self._lost: list[Machine] = []
        self.head: Machine
        self.learner: Machine
        self.service: Machine
        self.link: Link
        """To the bucket, for all but who made this."""
        self.driver: Supervised
        self.serving: Supervised

    def __enter__(self) -> Self:
        self.network.__enter__()
        try:
            self._up()
        except BaseException:
            self.network.close()
            raise
        return self

    def _up(self) -> None:
        store = self.network.add("store", STORE)
        silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # it tells of requests
        server = Path(sys.executable).with_name("moto_server")
        store.start([server, "-H", "127.0.0.1", "-p", str(_MOTO)], **silent)
        store.start(["redis-server", "--save", "", "--protected-mode", "no"], **silent)
        store.join_network()
        os.environ |= {**_CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{_MOTO}"}
        self.link = Link("127.0.0.1", _MOTO, (STORE, _LINK)).__enter__()
        wait_for(self._make_bucket, "the bucket is there", _SECONDS, every=0.5)
        # One after the other: where several start on two busy cores, Ray's agents exceed its quarter of a minute.
        self.start_head()
        self.await_joined(self.head)
        self.start_learner()
        self.await_joined(self.learner)
        for _ in range(ACTORS):
            self.await_joined(self.add_actors())
        self.driver = self._train("driver")
        wait_for(lambda: "policy" in open_storage(RUN).names(), "the run has a policy", _SECONDS, every=0.5)
        self.service = self.network.add("service", SERVICE)
        self.service.environment |= self._variables | {"TOUCHDOWN_TOKEN": TOKEN}
        log = self.directory / "serving.log"
        log.touch()
        self.serving = Supervised("serving", self._serve, log)
        wait_for(lambda: "Ctrl-C stops" in log.read_text(), "the service is up", _SECONDS, every=0.5)

    def _make_bucket(self) -> bool:
        try:
            boto3.client("s3").create_bucket(Bucket="bucket")
        except Exception:  # boto's own, of a server that is not up yet
            return False
        return True

    @staticmethod
    def await_joined(machine: Machine) -> None:
        """Until Ray is up there."""
        log = log_of(machine)
        wait_for(lambda: "Ray runtime started" in log.read_text(), f"{machine.name} has joined", _SECONDS, every=0.5)

    @property
    def _variables(self) -> dict[str, str]:
        """Of the machines' processes."""
        return {
            **_CREDENTIALS,
            "AWS_ENDPOINT_URL": f"http://{STORE}:{_LINK}",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # actors would hardly get a turn beside others
            "RAY_agent_register_timeout_ms": "120000",
            "REPORTER_UPDATE_INTERVAL_MS": "60000",  # Ray's agents look at every process, every five seconds
        }

    def _node(self, role: str, address: str, more: Mapping[str, str] | None = None) -> Machine:
        return start_node(self.network, role, address, self._variables | PATIENT | dict(more or {}))

    def start_head(self) -> None:
        """A head that keeps what it knows in Redis."""
        self.head = self._node("head", HEAD, {"RAY_REDIS_ADDRESS": f"{STORE}:6379"} | _NOTICE)

    def start_learner(self) -> None:
        """The machine of the learner and of the driver."""
        self.learner = self._node("learner", LEARNER, clock_variables(self.directory / "learner.clock"))

    def add_actors(self) -> Machine:
        """One more machine of actors."""
        address = f"10.0.0.{next(self._numbers)}"
        machine = self._node("actor", address, clock_variables(self.directory / f"{address}.clock"))
        if can_squeeze():
            confine(machine)
        self.actors.append(machine)
        return machine

    def lose(self, machine: Machine) -> None:
        """A machine of actors goes without a word."""
        self.actors.remove(machine)
        unplug(machine)
        self._lost.append(machine)

    def clocks(self) -> list[Path]:
        """The clocks that can be stepped."""
        names = ["learner", "driver", *(machine.addresses[0] for machine in self.actors)]
        return [self.directory / f"{name}.clock" for name in names]

    def _train(self, name: str, *more: str, until_success: bool = False) -> Supervised:
        def start(log: Path) -> subprocess.Popen[str]:
            variables = self._variables | clock_variables(self.directory / "driver.clock")
            variables |= {"RAY_ADDRESS": f"{HEAD}:6379"}
            command = [sys.executable, "-m", "learner.train", *_TRAIN, *more]
            with log.open("a") as file:
                process: subprocess.Popen[str] = self.learner.start(command, variables, stdout=file, stderr=file)
            return process

        return Supervised(name, start, self.directory / f"{name}.log", until_success)

    def _serve(self, log: Path) -> subprocess.Popen[str]:
        with log.open("a") as file:
            command = [sys.executable, "-m", *_SERVE]
            process: subprocess.Popen[str] = self.service.start(command, stdout=file, stderr=file)
        return process

    def reach_target(self, target: float, seconds: float) -> bool:
        """Give the run a target in place of the budget that it has; whether it ends by reaching it in patient time."""
        self.driver.stop()
        final = self._train("final", "--target-return", f"{target:g}", until_success=True)
        patience = Patience()
        while patience.look() < seconds and not final.done.wait(1.0):
            pass
        final.stop()
        return final.done.is_set()

    def machines(self) -> dict[str, Machine]:
        """Those that are on, by their part; actors' are numbered."""
        parts: dict[str, Any] = {"head": self.head, "learner": self.learner, "service": self.service}
        parts |= {f"actors-{index}": machine for index, machine in enumerate(self.actors)}
        return {name: machine for name, machine in parts.items() if machine.alive}

    def __exit__(self, *_: object) -> None:
        for supervised in (self.driver, self.serving):
            supervised.stop(30)
        self.network.close()
        self.link.__exit__()
        for machine in [*self.actors, *self._lost]:
            release(machine)
