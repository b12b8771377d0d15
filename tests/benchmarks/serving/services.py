"""The contestants as processes: started, waited for, watched, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil

from serve.service.fast_ingress import free_port


class Running:
    """A service in a process of its own, with all that it started."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.address = f"http://127.0.0.1:{port}"

    def family(self, name: str) -> list[psutil.Process]:
        """The processes under it whose command begins so."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                command = " ".join(child.cmdline())
                if command.startswith(name) or os.path.basename(command.partition(" ")[0]) == name:
                    found.append(child)
        return found

    def replicas(self) -> list[psutil.Process]:
        """Ray Serve's replicas."""
        return self.family("ray::ServeReplica")

    def megabytes(self) -> dict[str, float]:
        """Resident memory of the replicas and of HAProxy."""
        return {
            name: sum(process.memory_info().rss for process in self.family(prefix)) / 2**20
            for name, prefix in (("replicas", "ray::ServeReplica"), ("haproxy", "haproxy"))
        }


@contextlib.contextmanager
def started(module: str, *arguments: object, log: Path) -> Iterator[Running]:
    """A service that answers ``/act`` on a free port."""
    port = free_port()
    policy, *options = map(str, arguments)
    at = ["--port", str(port)] if module == "serve.app" else [str(port)]
    command = [sys.executable, "-m", module, policy, *at, *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    running = Running(process, port)
    try:
        deadline = time.monotonic() + 120
        while not answers(running.address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{module} did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield running
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str) -> bool:
    """Whether an observation gets an action."""
    try:
        return httpx2.post(f"{address}/act", json={"observation": [0.0] * 8}, timeout=10).is_success
    except httpx2.TransportError:
        return False
