"""A run's directory: enough to read what happened, to go on, and to make it again."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from actors.errors import UserError
from actors.policy import Policy
from learner.config import TrainConfig, read_config_text
from learner.storage import open_storage

_PACKAGES = ("touchdown", "ray", "torch", "numpy", "gymnasium", "envpool", "box2d")


class RunDirectory:
    """The files of one run, at a path or a URI::

    config.json  metrics.jsonl  events.out.tfevents.*  policy/  checkpoints/<n>/  evaluation.json  replay.mp4

    Raises:
        UserError: the URI names no store that is known.
    """

    def __init__(self, location: str | Path) -> None:
        self.storage = open_storage(location)
        self.checkpoints = self.storage.within("checkpoints")

    def __str__(self) -> str:
        return str(self.storage)

    def exists(self) -> bool:
        """Whether a run has begun here."""
        return "config.json" in self.storage.names()

    def create(self, config: TrainConfig, preset: str | None, command: str | None = None) -> None:
        """Start a new run: write its exact config, the command that made it and the versions of what runs it.

        ``command`` is for runs that another process started; None: this process's own command line.

        Raises:
            UserError: the directory holds a run already, or cannot be written.
        """
        made_by = {"preset": preset, "command": command or shlex.join(sys.orig_argv), **versions()}
        try:
            if self.exists() or self.checkpoints.names():
                raise UserError(f"{self} already holds a run: go on with --resume {self}, or choose another --run-dir")
            self.storage.write("config.json", json_bytes(config.to_dict()))
            self.storage.write("made_by.json", json_bytes(made_by))
        except OSError as error:
            raise UserError(f"cannot write to {self}: {error.strerror or error}") from error

    def config(self) -> TrainConfig:
        """The configuration of the run that is here.

        Raises:
            UserError: there is no run, or its config.json is damaged.
        """
        try:
            text = self.storage.read("config.json")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"no run in {self}: config.json is missing") from error
        except OSError as error:
            raise UserError(f"cannot read {self}: {error.strerror or error}") from error
        return read_config_text(text, TrainConfig(), f"{self}/config.json")

    def write_policy(self, policy: Policy) -> None:
        """Put a policy in place of the one that is there."""
        for name, data in policy.files().items():
            self.storage.write(f"policy/{name}", data)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def json_bytes(data: Any) -> bytes:
    """As the JSON files of a run are laid out."""
    return (json.dumps(data, indent=2) + "\n").encode()
