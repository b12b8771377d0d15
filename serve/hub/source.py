"""What there is to tell of a policy that is published: from its run, without what is nobody's business."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from actors.errors import UserError, printable
from actors.files import read_json
from actors.policy import Policy
from learner.dataset.part import public_name
from learner.run.run_directory import versions
from serve.hub.privacy import public_command


@dataclasses.dataclass(frozen=True)
class Source:
    """What there is to tell of a policy, made fit to be read by anyone."""

    path: Path
    policy: Policy
    config: dict[str, Any] | None
    """The run's config.json; None: there is just a policy."""
    made_by: dict[str, Any] | None
    """The run's made_by.json: preset, command, the commands it went on by, versions."""

    @property
    def algorithm(self) -> str:
        """A preset's name, or what an imported policy says of itself."""
        trained = self.policy.spec.trained
        return printable(str(trained.get("preset") or trained.get("algorithm") or "policy gradient"))


def read_source(path: Path, policy: Policy) -> Source:
    """What the run at ``path`` says of ``policy``, without what is nobody's business: paths, machines, secrets.

    The best policy of a run, in its ``best``, has all of this from the run.

    Raises:
        UserError: a file of the run is damaged.
    """
    if path.name == "best" and (path.parent / "config.json").is_file():
        path = path.parent
    config, made_by = (_read_object(path / name) for name in ("config.json", "made_by.json"))
    if config is not None and isinstance(config.get("fleet"), dict):
        config["fleet"]["actor_labels"] = {}  # names of one's own machines; they do not change what is learned
    if config is not None and isinstance(learned_from := config.get("dataset"), dict):
        learned_from["dataset"] = public_name(str(learned_from["dataset"])) if learned_from.get("dataset") else None
    if made_by is not None:
        resumed = _resumed(made_by)
        made_by = {name: value for name, value in made_by.items() if name in ("preset", "command", *versions())}
        made_by |= {"command": _public(made_by), "resumed": resumed}
    return Source(path, policy, config, made_by)


def _resumed(made_by: dict[str, Any]) -> list[dict[str, Any]]:
    """When a run went on, as ``RunDirectory.go_on`` lists it; of a package from elsewhere, what is so."""
    times = made_by.get("resumed")
    return [{"command": _public(time)} for time in times if isinstance(time, dict)] if isinstance(times, list) else []


def _public(made_by: dict[str, Any]) -> str | None:
    return public_command(str(made_by.get("command") or "")) or None


def _read_object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    data = read_json(path.read_bytes(), str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(data).__name__}")
    return data
