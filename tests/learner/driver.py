"""A training run as a process of its own, followed by its log: tests of clusters do things to it and watch."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learner.keeping.metrics_log import read_metrics
from tests.serve.served import wait_for

FOR_EVER = [
    *("--env", "tests.paced_environment:Paced-v0", "--n-envs", "8", "--n-steps", "8", "--rollouts-per-update", "2"),
    *("--total-timesteps", "500000000", "--checkpoint-seconds", "0.1", "--no-video", "--evaluate-episodes", "0"),
    *("--eval-every", "None"),  # so that each row of the log is an update
    *("--actor-labels", "role", "actor"),
]
"""Options of a run that ends when it is ended, on nodes with the label role=actor."""


class Driver:
    """A process of ``python -m learner.train``, its stderr a pipe, and the directory of its run."""

    def __init__(self, process: subprocess.Popen[str], run_dir: Path) -> None:
        self.process, self.run_dir = process, run_dir

    def rows(self) -> list[dict[str, Any]]:
        return read_metrics(self.run_dir / "metrics.jsonl")

    def wait(self, condition: Callable[[list[dict[str, Any]]], bool], seconds: float = 150) -> None:
        """Until the rows of the log are so."""

        def holds() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return condition(self.rows())

        wait_for(holds, "the run goes on", seconds, every=0.1)  # a log of thousands of rows

    def wait_for_updates(self, more: int) -> None:
        done = len(self.rows())
        self.wait(lambda rows: len(rows) >= done + more)

    def wait_for_actors(self, count: int, seconds: float = 150) -> None:
        self.wait(lambda rows: bool(rows) and rows[-1]["rollout/actors"] == count, seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def finish(self) -> str:
        """End it with Ctrl-C, which is what its exit status then says; answers its log."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=150)
        assert self.process.returncode == 130, said
        return said
