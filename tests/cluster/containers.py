"""docker-compose.yml's services as plain processes: each in namespaces of its own, with the name, address, environment,
command, limits and health check that Docker would give it. What stands for the image is this tree and its .venv.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from serve.service.fast_ingress import VARIABLES
from tests.cluster.machines import Network
from tests.serve.served import wait_for

ROOT = Path(__file__).parents[2]


def compose(**variables: str) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(it) for key, it in value.items()}
        if isinstance(value, list):
            return [fill(it) for it in value]
        if isinstance(value, str):
            value = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1], found[2]), value)
            return value.replace("$$", "$")
        return value

    filled: dict[str, Any] = fill(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))
    return filled


def image_environment() -> dict[str, str]:
    """The variables that the Dockerfile's base sets."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").split(" AS cuda-packages")[0]
    words = [word for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


class Stack:
    """A network, and the services that were started on it.

    Args:
        services: of the compose file.
        scale: how many containers of a service.
        directory: for the volume of runs and for logs.
    """

    def __init__(self, services: Mapping[str, Any], scale: Mapping[str, int], directory: Path) -> None:
        self.services, self._directory = services, directory
        self.containers = {
            (f"{name}-{number}" if name in scale else name): name
            for name in services
            for number in range(1, scale.get(name, 1) + 1)
        }
        self.runs = directory / "runs"
        self.runs.mkdir()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._network = Network(directory)
        self._network.__enter__()
        self.machines = self._network.machines
        # A name server, as Docker has: Prometheus asks for all addresses of a name, and Ray waits for an answer.
        self._addresses = {name: f"10.89.0.{number}" for number, name in enumerate(self.containers, 2)}
        names = directory / "names"
        names.write_text("".join(f"{self._addresses[name]} {it} {name}\n" for name, it in self.containers.items()))
        self._resolver = directory / "resolv.conf"
        self._resolver.write_text("nameserver 10.89.0.1\n")
        dns = self._network.add("dns", "10.89.0.1")
        dns.run(["dnsmasq", "--no-resolv", "--no-hosts", f"--addn-hosts={names}", "--user=root", "--pid-file="])

    def _boot(self, name: str, service: Mapping[str, Any]) -> None:
        disk = self._directory / f"{name}-srv"
        for folder in ("touchdown", "runs", "home", "prometheus"):
            (disk / folder).mkdir(parents=True)
        volumes = (volume.split(":") for volume in service["volumes"] if volume.startswith("."))
        files = {inside: (ROOT / outside).resolve() for outside, inside, *_ in volumes}
        mounts = {
            "/srv": disk,
            "/srv/touchdown": ROOT,
            "/srv/runs": self.runs,
            "/etc/resolv.conf": self._resolver,
            **self._places_for(name, files),
            **files,
        }
        machine = self._network.add(name, self._addresses[name], mounts=mounts)
        machine.run(["mount", "-o", f"remount,size={service.get('shm_size', '64mb')[:-1]}", "/dev/shm"])

    def _places_for(self, name: str, files: Mapping[str, Path]) -> dict[str, Path]:
        """Directories with empty files to mount others over, where this system has none: Docker makes them."""
        places: dict[str, Path] = {}
        for place in {Path(inside).parent for inside in files if not Path(inside).exists()}:
            places[str(place)] = empty = self._directory / f"{name}{str(place).replace('/', '-')}"
            empty.mkdir()
            for inside in files:
                if Path(inside).parent == place:
                    (empty / Path(inside).name).touch()
        return places

    def start(self, name: str, program: str = "", **changes: str) -> None:
        """Start a container, on its machine of before if it had one, where nothing runs on.

        Args:
            name: of the container.
            program: what the image starts, where it is not ours.
            changes: of its environment.
        """
        service = self.services[self.containers[name]]
        if name not in self.machines:
            self._boot(name, service)
        self.machines[name].end_all()
        words = [program] if program else []
        for part in ("entrypoint", "command"):
            said = service.get(part, [])
            words += shlex.split(said) if isinstance(said, str) else map(str, said)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/srv/home",
            "PYTHONPATH": "/srv/touchdown",  # where the image has our packages installed
            **image_environment(),
            "RAY_SERVE_HAPROXY_MAXCONN": VARIABLES["RAY_SERVE_HAPROXY_MAXCONN"],  # where we may open fewer files
            "RAY_SERVE_HAPROXY_BINARY_PATH": VARIABLES["RAY_SERVE_HAPROXY_BINARY_PATH"],
            **{key: str(value) for key, value in service.get("environment", {}).items()},
            **changes,
        }
        files = min(service.get("ulimits", {}).get("nofile", 1024), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        inside = f"cd /srv/touchdown; ulimit -n {files}; exec {shlex.join(words)}"
        variables = [f"{key}={value}" for key, value in environment.items()]
        with self.log(name).open("ab") as log:
            self.processes[name] = self.machines[name].start(
                ["env", "-i", *variables, "bash", "-c", inside], stdout=log, stderr=subprocess.STDOUT
            )

    def log(self, name: str) -> Path:
        """What a container has written."""
        return self._directory / f"{name}.log"

    def healthy(self, name: str) -> bool:
        """Its health check, as Docker runs it; one that has ended is started again, where it says so."""
        service = self.services[self.containers[name]]
        if self.processes[name].poll() is not None:
            assert service["restart"] == "unless-stopped", f"{name} ended: {self.log(name).read_text()}"
            self.start(name)
        test = service["healthcheck"]["test"]
        try:
            return self.machines[name].run(["/bin/sh", "-c", test], timeout=60, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def await_healthy(self, name: str, seconds: float = 400) -> None:
        """Wait until it is healthy."""
        try:
            wait_for(lambda: self.healthy(name), f"{name} is healthy", seconds, every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(name).read_text()}") from None

    def await_dependencies(self, name: str) -> None:
        """What its depends_on asks for."""
        for service, wanted in self.services[self.containers[name]].get("depends_on", {}).items():
            for other, of in self.containers.items():
                if of == service and wanted["condition"] == "service_healthy":
                    self.await_healthy(other)

    def terminate(self, name: str, seconds: float) -> int:
        """Stop it as Docker does: SIGTERM to what its command is; its exit code."""
        process = self.processes[name]
        (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()  # nsenter's one
        os.kill(int(inside), signal.SIGTERM)
        return process.wait(seconds)

    def close(self) -> None:
        """End all."""
        self._network.close()
        for process in self.processes.values():
            process.wait(180)
