"""A run's directory: enough to read what happened, to go on, and to make it again."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from actors.errors import UserError
from actors.files import json_text, read_json
from actors.policy import Policy
from learner.keeping.storage import open_storage
from learner.run.config import TrainConfig, read_config_text
from learner.run.older import modernised

_FILES = (
    *("config.json", "made_by.json", "metrics.jsonl", "result.json"),
    *("policy", "checkpoints", "versions", "recorded"),
)
_PACKAGES = ("touchdown", "ray", "torch", "numpy", "gymnasium", "envpool", "box2d")


class RunDirectory:
    """The files of one run, at a path or a URI::

    config.json  made_by.json  metrics.jsonl  events.out.tfevents.*  checkpoints/<n>/  policy/  best/
    versions/<n>/  recorded/  result.json  evaluation.json  replay.mp4  videos/

    Raises:
        UserError: the URI names no store that is known.
    """

    def __init__(self, location: str | Path) -> None:
        self.storage = open_storage(location)
        self.checkpoints = self.storage.within("checkpoints")

    def __str__(self) -> str:
        return str(self.storage)

    @property
    def recorded(self) -> str:
        """The dataset of what the run's actors fly, where they keep it."""
        return f"{self}/recorded"

    def exists(self) -> bool:
        """Whether a run has begun here."""
        return "config.json" in self.storage.names()

    def is_evaluated(self) -> bool:
        """Whether the policy that the run came to has been scored."""
        return "evaluation.json" in self.storage.names()

    def require_free(self) -> None:
        """Check that a run can begin here.

        Raises:
            UserError: the directory holds a run already, or cannot be read.
        """
        try:
            if self.exists() or self.checkpoints.names():
                raise UserError(f"{self} already holds a run: go on with --resume {self}, or choose another --run-dir")
        except OSError as error:
            raise UserError(f"cannot read {self}: {error.strerror or error}") from error

    def create(self, config: TrainConfig, preset: str | None, command: str | None = None) -> None:
        """Start a new run: write its exact config, the command that made it and the versions of what runs it.

        ``command`` is for runs that another process started; None: this process's own command line.

        Raises:
            UserError: the directory holds a run already, or cannot be written.
        """
        self.require_free()
        made_by = {"preset": preset, "command": command or shlex.join(sys.orig_argv), **versions()}
        try:
            self.storage.write("config.json", json_bytes(config.to_dict()))
            self.storage.write("made_by.json", json_bytes(made_by))
        except OSError as error:
            raise UserError(f"cannot write to {self}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            self.discard()
            raise

    def go_on(self, config: TrainConfig, timesteps: int, command: str | None = None) -> None:
        """Record that the run goes on, with what has changed; what it had come to before holds no more.

        config.json becomes what the run goes on with; ``made_by.json["resumed"]`` lists each time it did: the command,
        the steps done by then, and the options and versions that changed, each as [before, after].

        Raises:
            UserError: it cannot be written, or a file of the record is damaged.
        """
        made_by = self.made_by() or {}
        changed = differences(self.config().to_dict(), config.to_dict()) | differences(
            {name: made_by[name] for name in versions() if name in made_by}, versions()
        )
        entry = {"command": command or shlex.join(sys.orig_argv), "total_timesteps": timesteps, "changed": changed}
        made_by["resumed"] = [*made_by.get("resumed", []), entry]
        try:
            self.storage.write("made_by.json", json_bytes(made_by))
            self.storage.write("config.json", json_bytes(config.to_dict()))
            for name in ("result.json", "evaluation.json"):
                self.storage.remove(name)
        except OSError as error:
            raise UserError(f"cannot write to {self}: {error.strerror or error}") from error

    def discard(self) -> None:
        """Remove a run that came to nothing: the command that began it can then begin it again.

        Raises:
            OSError: it cannot be removed.
        """
        for name in self.storage.names():
            if name in _FILES or name.startswith("events.out.tfevents."):
                self.storage.remove(name)
        if not self.storage.names():
            self.storage.remove("")

    def options(self) -> dict[str, Any]:
        """The configuration as plain data; nothing that it names is imported, so it may be anybody's.

        Raises:
            UserError: there is no run, or its config.json is damaged.
        """
        options = read_json(self._config_text(), f"{self}/config.json")
        if not isinstance(options, dict):
            raise UserError(f"{self}/config.json must hold a JSON object, not {type(options).__name__}")
        return modernised(options)

    def config(self) -> TrainConfig:
        """The configuration of the run that is here.

        Raises:
            UserError: there is no run, or its config.json is damaged.
        """
        return read_config_text(self._config_text(), TrainConfig(), f"{self}/config.json")

    def _config_text(self) -> bytes:
        try:
            text = self.storage.read("config.json")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"no run in {self}: config.json is missing") from error
        except OSError as error:
            raise UserError(f"cannot read {self}: {error.strerror or error}") from error
        return text

    def result(self) -> dict[str, Any] | None:
        """What the run came to, see ``Result.record``; None: it has not ended, or its process was killed.

        Raises:
            UserError: result.json is damaged.
        """
        return self._read("result.json")

    def made_by(self) -> dict[str, Any] | None:
        """The preset, the command and the versions that made it; None: that is not recorded.

        Raises:
            UserError: made_by.json is damaged.
        """
        return self._read("made_by.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            data = read_json(self.storage.read(name), f"{self}/{name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {self}: {error.strerror or error}") from error
        if not isinstance(data, dict):
            raise UserError(f"{self}/{name} must hold a JSON object, not {type(data).__name__}")
        return data

    def write_policy(self, policy: Policy) -> None:
        """Put a policy in place of the one that is there."""
        for name, data in policy.files().items():
            self.storage.write(f"policy/{name}", data)

    def write_best(self, policy: Policy, score: dict[str, Any]) -> None:
        """Put a policy and its score in place of the best one that is there."""
        for name, data in (policy.files() | {"evaluation.json": json_bytes(score)}).items():
            self.storage.write(f"best/{name}", data)


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The values of nested dictionaries that differ, as [before, after], by the last of their names."""
    changes: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            changes |= differences(old, value)
        elif value != old:
            changes[name] = [old, value]
    return changes


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
    """Data as the JSON files of a run are laid out."""
    return f"{json_text(data)}\n".encode()
