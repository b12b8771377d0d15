"""Growth: the machines that a cluster may come to, by ray up's file and by Kubernetes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import actors.growth
from actors.room import Room
from tests.cluster.kubernetes_api import kubernetes_api

CLUSTER = Path(__file__).parents[2] / "cluster"
ASK = """
import json, os, sys
from actors.room import Room
answers = []
for name in sys.argv[1:]:
    os.environ["RAY_CLUSTER_NAME"] = name
    room = Room(1.0, {"role": "actor"})
    answers.append([room._ceiling(), room._ceiling()])
print(json.dumps(answers))
"""


@pytest.mark.parametrize(
    ("cpus", "labels", "expected"),
    [(1.0, {"role": "actor"}, 128), (8.0, {"role": "actor"}, 16), (1.0, {"role": "moon"}, 0), (1.0, {}, 4 + 128)],
)
def test_the_ceiling_is_that_of_the_clusters_file(
    monkeypatch: pytest.MonkeyPatch, cpus: float, labels: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(actors.growth, "_CLUSTER_FILE", CLUSTER / "gpu.yaml")
    assert Room(cpus, labels)._ceiling() == expected
    monkeypatch.setattr(actors.growth, "_CLUSTER_FILE", Path("/there/is/none.yaml"))
    assert Room(cpus, labels)._ceiling() == 0


def test_all_kinds_together_are_within_the_files_maximum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"max_workers": 8, "resources": {"CPU": 16}}
    file = {"max_workers": 9, "available_node_types": {"first": kind, "second": kind}}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(file))
    monkeypatch.setattr(actors.growth, "_CLUSTER_FILE", tmp_path / "file.yaml")
    assert Room(1.0, {})._ceiling() == 9 * 16


def ask(clusters: dict[str, object], directory: Path) -> tuple[list[list[int]], list[str]]:
    """Ceilings for actors, asked twice each, and the lines that were logged."""
    with kubernetes_api(directory, "flights", clusters) as variables:
        asked = subprocess.run(
            [sys.executable, "-c", ASK, *clusters],
            env={**os.environ, **variables, "HOME": str(directory)},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(asked.stdout), asked.stderr.splitlines()


def test_on_kubernetes_the_ceiling_is_that_of_the_cluster_as_it_stands_there(tmp_path: Path) -> None:
    job = next(it for it in yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text()) if it["kind"] == "RayJob")
    scaled = job["spec"]["rayClusterSpec"]
    fixed = {**scaled, "enableInTreeAutoscaling": False}
    answers, lines = ask({"scaled": scaled, "fixed": fixed, "forbidden": None}, tmp_path)
    assert answers == [[32, 32], [0, 0], [0, 0]]
    assert len(lines) == 1
    assert "RayCluster forbidden" in lines[0]
    assert "403" in lines[0]
