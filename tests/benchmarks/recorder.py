"""What every contestant reports: a training curve, a snapshot of the policy per iteration, and when to stop."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.files import write_text
from actors.policy import Policy


@dataclass(frozen=True)
class Record:
    """The state of training after one iteration: a rollout and the update that follows it."""

    seconds: float
    """Since collection began, less the time that snapshots took."""
    steps: int
    """Environment steps so far."""
    mean_return: float | None
    """Mean undiscounted return of the last 100 training episodes; None while there is none."""


class Recorder:
    """Keeps time and takes snapshots, in memory; its clock stands still while it works.

    Raises:
        FileExistsError: ``snapshots`` holds those of an earlier run; a mix of two would pass for one.
    """

    def __init__(self, snapshots: Path, max_seconds: float, max_steps: int) -> None:
        if snapshots.exists():
            raise FileExistsError(f"{snapshots} has snapshots of an earlier run; name another folder")
        self._folder = snapshots
        self._max_seconds = max_seconds
        self._max_steps = max_steps
        self._start = math.nan
        self._policies: list[Policy] = []
        self.records: list[Record] = []

    def start(self) -> None:
        """Begin to count: the next thing that happens is the first environment step."""
        self._start = time.perf_counter()

    def record(self, steps: int, mean_return: float, policy: Policy, seconds: float | None = None) -> None:
        """Note one finished iteration, and keep its policy; ``seconds`` where the contestant has its own clock."""
        called = time.perf_counter()
        elapsed = called - self._start if seconds is None else seconds
        self.records.append(Record(elapsed, steps, mean_return if math.isfinite(mean_return) else None))
        self._policies.append(policy)
        self._start += time.perf_counter() - called

    @property
    def finished(self) -> bool:
        """Whether the last record is at or over one of the limits."""
        return bool(self.records) and (
            self.records[-1].seconds >= self._max_seconds or self.records[-1].steps >= self._max_steps
        )

    def write(self, path: Path, description: Mapping[str, Any]) -> None:
        """Write the description of the run, its totals and its curve as JSON, and the snapshots."""
        for record, policy in zip(self.records, self._policies, strict=True):
            policy.save(self._folder / f"steps-{record.steps:010d}")
        last = self.records[-1]
        totals = {"seconds": last.seconds, "steps": last.steps, "steps_per_second": last.steps / last.seconds}
        records = [asdict(record) for record in self.records]
        write_text(path, json.dumps({**description, **totals, "records": records}, indent=1) + "\n")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every contestant has."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments and the weights")
    limit = "stop after the iteration that reaches this"
    parser.add_argument("--max-seconds", type=float, default=1200.0, help=limit)
    parser.add_argument("--max-steps", type=int, default=5_000_000, help=limit)
    parser.add_argument("--snapshots", type=Path, required=True, help="new folder, for one policy per iteration")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
