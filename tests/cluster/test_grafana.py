"""The dashboard: what Grafana needs to load it, PromQL that Prometheus takes, and names that somebody exports.

That a real Prometheus finds Ray's and Serve's metrics under these names is tested with docker-compose.yml.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from tests.cluster.dashboard import DASHBOARD, GRAFANA, PANELS, QUERIES, Query
from tests.cluster.training_metrics import TRAINING_METRICS

COMPOSE = yaml.safe_load((GRAFANA.parents[1] / "docker-compose.yml").read_text())


def provisioned(kind: str) -> dict[str, object]:
    (file,) = (GRAFANA / "provisioning" / kind).iterdir()
    settings: dict[str, object] = yaml.safe_load(file.read_text())[{"dashboards": "providers"}.get(kind, kind)][0]
    return settings


def test_it_is_where_grafana_looks() -> None:
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    folders = {inside: outside for outside, inside in mounts.items() if outside.startswith(".")}
    assert {GRAFANA.parents[1] / outside for outside in folders.values()} == {
        GRAFANA / "provisioning",
        GRAFANA / "dashboards",
    }
    assert "/etc/grafana/provisioning" in folders, "Grafana's own default"
    options = provisioned("dashboards")["options"]
    assert isinstance(options, dict)
    assert options["path"] in folders
    home = Path(COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (GRAFANA.parents[1] / folders[str(home.parent)] / home.name).is_file()


def test_panels_ask_the_datasource_that_is_provisioned() -> None:
    source = provisioned("datasources")
    assert source["url"] == "http://prometheus:9090"
    expected = {"type": source["type"], "uid": source["uid"]}
    asked = [
        part["datasource"] for panel in PANELS for part in (panel, *panel.get("targets", [])) if "targets" in panel
    ]
    asked += [variable["datasource"] for variable in DASHBOARD["templating"]["list"]]
    assert len(asked) > len(PANELS)
    assert all(it == expected for it in asked)


def test_panels_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]


def test_all_of_a_run_is_shown_and_nothing_that_it_does_not_export() -> None:
    asked = {name for query in QUERIES for name in query.metrics if name.startswith("ray_touchdown_")}
    serving = {name for name in asked if re.match("ray_touchdown_(act_|policy_version|policy_reloads)", name)}
    assert asked - serving == set(TRAINING_METRICS)
    (variable,) = DASHBOARD["templating"]["list"]
    metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
    assert label in TRAINING_METRICS[metric]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_labels_of_a_run_are_there(query: Query) -> None:
    for name in query.metrics & TRAINING_METRICS.keys():
        by = re.findall(r"by \(([^)]*)\)", query.expression)[0].split(", ")
        assert set(by) <= TRAINING_METRICS[name]
    shown = set(re.findall(r"{{(\w+)}}", query.legend))
    grouped = re.findall(r"by \(([^)]*)\)", query.expression)
    if grouped:
        assert shown <= set(grouped[0].split(", ")), "a legend can show only labels that are left"


def test_metrics_of_nodes_are_rays() -> None:
    names = {name for query in QUERIES for name in query.metrics if name.startswith("ray_node_")}
    assert names
    assert names <= {f"ray_{name}" for name in METRICS_GAUGES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_prometheus_reads_the_queries(tmp_path: Path) -> None:
    rules = [{"record": f"query{number}", "expr": query.filled} for number, query in enumerate(QUERIES)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(file)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert said.returncode == 0, said.stderr
    assert f"{len(QUERIES)} rules found" in said.stdout
