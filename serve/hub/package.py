"""A trained policy as a directory to publish: made from a run, or from a policy alone, without any network."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from actors.errors import EnvironmentFault, UserError
from actors.evaluation import record_video
from actors.files import json_text, replacing, write_text
from learner.keeping.metrics_log import read_metrics
from serve.hub.formats.onnx import export
from serve.hub.model_card import write_card
from serve.hub.privacy import refuse_secrets
from serve.hub.source import Source

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
    try:
        export(policy, directory / "policy.onnx")
    except UserError as error:
        notes.append(f"no policy.onnx: {error}")
    digest = hashlib.sha256((directory / "policy.safetensors").read_bytes()).hexdigest()
    results = {**score, "policy_sha256": digest}  # so that who pulls it can tell that it is the policy evaluated
    for name, data in (("config", source.config), ("made_by", source.made_by), ("results", results)):
        if data is not None:
            write_text(directory / f"{name}.json", json_text(data) + "\n")
    if not _draw_training(source, directory / "training_curve.png"):
        notes.append("no training curve: no metrics.jsonl has two returns to draw it through")
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
