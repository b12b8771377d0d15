"""A trained policy as a directory to publish: made from a run, or from a policy alone, without any network."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from actors.errors import EnvironmentFault, UserError, printable
from actors.evaluation import record_video
from actors.files import json_text, read_json, replacing, write_text
from actors.policy import Policy
from learner.metrics_log import read_metrics
from learner.run_directory import versions
from serve.model_card import write_card
from serve.onnx_export import export
from serve.privacy import public_command, refuse_secrets

FILES = (
    "README.md",
    "policy.json",
    "policy.safetensors",
    "policy.onnx",
    "config.json",
    "made_by.json",
    "results.json",
    "replay.mp4",
    "training_curve.png",
    "logs/events.out.tfevents.*",
)
"""Everything that a package may hold."""


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
        return printable(str(trained.get("algorithm") or trained.get("preset") or "policy gradient"))


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


def write_package(
    source: Source, score: dict[str, Any], repo_id: str | None, revision: str | None, directory: Path
) -> list[str]:
    """Fill an empty directory with the package.

    Args:
        source: the policy and its run.
        score: of ``learner.evaluate.evaluate``, from whose first seed the replay is filmed too.
        repo_id: where it will be found, for the instructions on its card; None: in this directory.
        revision: the branch there; None: the main one.
        directory: where to write.

    Returns:
        What it goes without, and why.

    Raises:
        UserError: a file would give a secret away.
    """
    notes = []
    policy = source.policy
    policy.save(directory)
    export(policy, directory / "policy.onnx")
    digest = hashlib.sha256((directory / "policy.safetensors").read_bytes()).hexdigest()
    results = {**score, "policy_sha256": digest}  # so that who pulls it can tell that it is the policy evaluated
    for name, data in (("config", source.config), ("made_by", source.made_by), ("results", results)):
        if data is not None:
            write_text(directory / f"{name}.json", json_text(data) + "\n")
    if not _draw_training(source, directory / "training_curve.png"):
        notes.append("no training curve: there is no metrics.jsonl to draw it from")
    try:
        record_video(policy, directory / "replay.mp4", score["first_seed"])
    except (
        UserError,
        EnvironmentFault,
        gymnasium.error.Error,
        ImportError,
    ) as error:  # a renderer may be missing only when it is used
        notes.append(f"no replay: {error}")
    for events in sorted(source.path.glob("events.out.tfevents.*")):
        (directory / "logs").mkdir(exist_ok=True)
        shutil.copyfile(events, directory / "logs" / _without_host(events.name))
    write_card(source, results, repo_id, revision, directory)
    refuse_secrets(directory, files_of(directory))
    return notes


def files_of(directory: Path) -> list[Path]:
    """All files in a directory, at any depth."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def is_package(directory: Path) -> bool:
    """Whether a directory holds a package and nothing else, so that a newer one may take its place."""
    names = [path.relative_to(directory).as_posix() for path in files_of(directory)]
    return "README.md" in names and all(any(fnmatch.fnmatchcase(name, known) for known in FILES) for name in names)


def _without_host(name: str) -> str:
    """events.out.tfevents.<seconds>.<host>.<part> without the host."""
    return re.sub(r"^(events\.out\.tfevents\.\d+)\..*\.(\d+)$", r"\1.\2", name)


def _draw_training(source: Source, path: Path) -> bool:
    """Return by environment steps; False if there are not two points of it."""
    steps, returns = "time/total_timesteps", "rollout/ep_rew_mean"
    rows = read_metrics(source.path / "metrics.jsonl")
    points = np.array([(row[steps], row[returns]) for row in rows if steps in row and returns in row])
    if len(points) < 2:
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot(*points.T, color="#0072B2")
    axis.set_xlabel("environment steps")
    axis.set_ylabel("mean return of the last 100 training episodes")
    axis.set_title(f"{source.algorithm} on {source.policy.spec.env_id}")
    axis.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return True
