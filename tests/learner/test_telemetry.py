"""What Ray's metrics endpoint says of a run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from serve.fast_ingress import free_port

PROGRAM = """
import sys, time
import ray
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _metrics_export_port=int(sys.argv[1]))
from learner.config import overlay
from learner.presets import preset
from learner.telemetry import Telemetry
from learner.trainer import Trainer
changes = {"env": "CartPole-v1", "stop": {"total_timesteps": 20_000}, "fleet": {"actors": 2}}
result = Trainer(overlay(preset("ppo"), changes, "test"), sys.argv[2], callbacks=[Telemetry()]).run()
print(result.counters.total_timesteps, result.counters.episodes, result.policy.spec.version, flush=True)
sys.stdin.read()
"""


def figures(port: int) -> dict[tuple[str, str], float]:
    """By name and actor, those of the run."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    found = {}
    for name, labels, value in re.findall(r"^ray_(touchdown_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert tags["run"] == "the-run"
        found[name, tags.get("actor", "")] = float(value)
    return found


def test_prometheus_sees_what_the_run_came_to(tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port), str(tmp_path / "the-run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin
        assert program.stdout
        steps, episodes, version = map(int, program.stdout.readline().split())
        deadline = time.monotonic() + 60
        found: dict[tuple[str, str], float] = {}
        while found.get(("touchdown_updates_total", "")) != version:  # Ray passes them on every few seconds
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
            found = figures(port)
        program.stdin.close()
    assert found["touchdown_episodes_total", ""] == episodes
    assert found["touchdown_steps_total", "0"] + found["touchdown_steps_total", "1"] >= steps
    assert found["touchdown_batch_bytes_total", ""] > steps * 4 * 4
    assert found["touchdown_learner_busy_seconds_total", ""] > 0
    assert found["touchdown_actors", ""] == 2
    assert 0 < found["touchdown_return", ""] <= 500
    assert 0 <= found["touchdown_unsaved_seconds", ""] < 60
    assert 0 <= found["touchdown_policy_lag", ""] <= 1
