"""The computer that a cluster is brought up from, and what a training run on a cluster must leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.machines import Network
from tests.serve.served import wait_for

_DASHBOARD = 8265
_STEPS = 4000

_ASK = f"""
import pathlib, sys, urllib.request
url = f"http://127.0.0.1:{_DASHBOARD}/api/v0/{{sys.argv[1]}}?detail=1&limit=1000"
token = pathlib.Path("~/.ray/auth_token").expanduser().read_text().strip()
request = urllib.request.Request(url, headers={{"Authorization": f"Bearer {{token}}"}})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""
"""A program for the laptop that asks through the tunnel for the cluster's actors, or nodes."""


QUICK_TO_NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "8",
}
"""As cluster/*.yaml sets them on the head, which then takes a machine that went silent for lost after some 20 s."""


def patient(text: str) -> str:
    """A cluster's file whose head waits four times as long: where tests run, live nodes can be silent for 20 s."""
    assert text.count("failure_threshold=8;") == 1
    return text.replace("failure_threshold=8;", "failure_threshold=30;")


class Laptop:
    """The computer that a cluster is brought up from, with a cluster's file.

    Args:
        file: the cluster's YAML.
        variables: in its environment.
    """

    def __init__(self, network: Network, file: str | Path, variables: Mapping[str, str]) -> None:
        self.machine = network.add("laptop", "203.0.113.1")
        self._file = file
        self._ray = [sys.executable, "-m", "ray.scripts.scripts"]
        home = Path("/home/me")
        self.machine.environment.pop("RAY_ADDRESS", None)
        self.machine.environment |= {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        self.machine.environment |= variables
        self.machine.run([*self._ray, "get-auth-token", "--generate"])

    def up(self) -> None:
        """Run ``ray up``, up to three times: on a busy machine Ray's processes can take longer than it waits."""
        for attempt in range(1, 4):
            try:
                self.ray("up", "-y", timeout=400)
                return
            except AssertionError:
                if attempt == 3:
                    raise

    def ray(self, verb: str, *options: str, timeout: float) -> str:
        """Run ``ray VERB`` on the file; returns the output."""
        return self.machine.run([*self._ray, verb, self._file, *options], timeout=timeout).stdout

    def train(
        self, run: Path, *options: str, env: str = "CartPole-v1", clone: Path | None = None
    ) -> dict[str, set[str]]:
        """Submit a short training run through ``ray dashboard``'s tunnel, and await it.

        Args:
            run: its directory.
            options: of the run.
            env: what it flies.
            clone: the directory whose code it runs; None: what ``ray up`` copied.

        Returns:
            The addresses of the nodes on which actors of each class were.
        """
        address = ["--address", f"http://127.0.0.1:{_DASHBOARD}"]
        url = f"http://127.0.0.1:{_DASHBOARD}/api/gcs_healthz"
        asked = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=10)"
        tunnel: subprocess.Popen[str] | None = None

        def answered() -> bool:
            nonlocal tunnel
            if tunnel is None or tunnel.poll() is not None:
                tunnel = self.machine.start([*self._ray, "dashboard", self._file], stdin=subprocess.DEVNULL)
            return self.machine.run([sys.executable, "-c", asked], check=False).returncode == 0

        try:
            wait_for(answered, "the tunnel leads to the dashboard", 180, every=0.5)
            command = ["python", "-m", "learner.train", "--config", "cluster/train.json", "--env", env]
            short = ["--total-timesteps", str(_STEPS), "--evaluate-episodes", "2", "--no-video", "--run-dir", str(run)]
            code = ["--working-dir", str(clone)] if clone else []
            submit = [*self._ray, "job", "submit", *address, *code, "--"]
            self.machine.run([*submit, *command, *short, *options], timeout=600)
            actors, nodes = self._listed("actors"), self._listed("nodes")
        finally:
            if tunnel:
                tunnel.terminate()
                tunnel.wait(60)
        addresses = {node["node_id"]: node["node_ip"] for node in nodes}
        return {
            name: {addresses[actor["node_id"]] for actor in actors if actor["class_name"] == name and actor["node_id"]}
            for name in ("LearnerActor", "RolloutActor")
        }

    def _listed(self, kind: str) -> list[dict[str, Any]]:
        """What ``ray list`` shows, which would take seconds to import."""
        answer = json.loads(self.machine.run([sys.executable, "-c", _ASK, kind]).stdout)
        listed: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return listed


def check_run(run: Path) -> None:
    """A run directory has all its files, and its last update counts all steps."""
    assert {"config.json", "made_by.json", "evaluation.json", "policy", "checkpoints"} <= {
        path.name for path in run.iterdir()
    }
    assert (run / "policy/policy.safetensors").exists()
    assert list((run / "checkpoints").iterdir())
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["time/total_timesteps"] >= _STEPS
