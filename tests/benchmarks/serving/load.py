"""Load: wrk, and viewers of the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

OBSERVATION = [0.1, 1.2, -0.3, -0.4, 0.05, 0.06, 0.0, 1.0]
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def require_wrk() -> None:
    """Say how to get it."""
    if shutil.which("wrk") is None:
        sys.exit("bench-serve needs wrk: apt-get install wrk")


def wrk(address: str, clients: int, seconds: int, body: dict[str, Any]) -> dict[str, float]:
    """Requests/s, p50 and p99 in ms, and the share of answers that were not 2xx, of as many connections as clients."""
    script = (
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = {json.dumps(json.dumps(body))}\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--latency", "--timeout", "10"]
        said = subprocess.run(
            [*command, "-s", file.name, f"{address}/act"], capture_output=True, text=True, check=True
        ).stdout

    def found(pattern: str) -> list[float]:
        return [float(number) for number in re.findall(pattern, said)]

    def milliseconds(percent: int) -> float:
        match = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", said)
        assert match, said
        return float(match[1]) * _UNITS[match[2]]

    requests = found(r"(\d+) requests in")[0]
    refused = sum(found(r"Non-2xx or 3xx responses: (\d+)"))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    return {
        "requests_per_second": found(r"Requests/sec:\s+([\d.]+)")[0],
        "requests": requests,
        "p50_ms": milliseconds(50),
        "p99_ms": milliseconds(99),
        "refused": refused,
        "socket_errors": sum(map(int, errors.groups())) if errors else 0,
    }


def viewers(address: str, count: int, seconds: float) -> dict[str, Any]:
    """Frames a second that each of ``count`` viewers of the page gets, in a process of their own."""
    command = [sys.executable, "-m", "tests.benchmarks.serving.viewers", address, str(count), str(seconds)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout
    figures: dict[str, Any] = json.loads(said)
    return figures
