"""A run's directory: enough to read what happened, to go on, and to make it again."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from actors.errors import UserError
from actors.files import replacing, write_text
from learner.config import TrainConfig, read_config

_PACKAGES = ("touchdown", "ray", "torch", "numpy", "gymnasium", "envpool", "box2d")


class RunDirectory:
    """Paths and files of one run::

    config.json  metrics.jsonl  events.out.tfevents.*  policy/  checkpoints/<n>/  evaluation.json  replay.mp4
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.policy = self.path / "policy"

    def create(self, config: TrainConfig, preset: str | None, command: str | None = None) -> None:
        """Start a new run: write its exact config, the command that made it and the versions of what runs it.

        ``command`` is for runs that another process started; None: this process's own command line.

        Raises:
            UserError: the directory holds a run already, or cannot be written.
        """
        if (self.path / "config.json").exists():
            raise UserError(
                f"{self.path} already holds a run: go on with --resume {self.path}, or choose another --run-dir"
            )
        try:
            write_text(self.path / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
            made_by = {"preset": preset, "command": command or shlex.join(sys.orig_argv), **versions()}
            write_text(self.path / "made_by.json", json.dumps(made_by, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from error

    def config(self) -> TrainConfig:
        """The configuration of the run that is here.

        Raises:
            UserError: there is no run, or its config.json is damaged.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise UserError(f"no run in {self.path}: {path.name} is missing")
        return read_config(path, TrainConfig())


class MetricsLog:
    """metrics.jsonl and TensorBoard events: one row an update.

    Args:
        path: the run's directory.
        timesteps: rows beyond this step are dropped first: they are of updates that a resume makes again.
    """

    def __init__(self, path: Path, timesteps: int) -> None:
        self._path, self._rows = path, path / "metrics.jsonl"
        self._open(timesteps)

    def _open(self, timesteps: int) -> None:
        from tensorboardX import SummaryWriter  # imports torch: a second that only training need wait for

        kept = [row for row in read_metrics(self._rows) if row["time/total_timesteps"] <= timesteps]
        if kept or self._rows.exists():
            with replacing(self._rows) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._rows.open("a", buffering=1)
        part = len(list(self._path.glob("events.out.tfevents.*")))
        self._events = SummaryWriter(
            str(self._path),
            purge_step=timesteps + 1 if part else None,
            flush_secs=10,
            filename_suffix=f".{part:03d}",  # two files of one second would otherwise be one
        )

    def write(self, row: dict[str, float]) -> None:
        """Add a row; figures that are not known yet (NaN) are left out."""
        known = {name: value for name, value in row.items() if math.isfinite(value)}
        self._file.write(json.dumps(known) + "\n")
        for name, value in known.items():
            self._events.add_scalar(name, value, int(row["time/total_timesteps"]))

    def rewind(self, timesteps: int) -> None:
        """Drop rows beyond this step: the learner went back to a checkpoint."""
        self.close()
        self._open(timesteps)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._events.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
