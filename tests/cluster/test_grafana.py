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


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus"
)


def promtool(*arguments: str) -> str:
    said = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=180)
    assert said.returncode == 0, said.stderr + said.stdout
    return said.stdout


@needs_promtool
def test_prometheus_reads_the_queries(tmp_path: Path) -> None:
    rules = [{"record": f"query{number}", "expr": query.filled} for number, query in enumerate(QUERIES)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", str(file))


ALERTS = GRAFANA.parent / "alerts.yml"
TROUBLE = {
    "TouchdownNoActors": ("ray_touchdown_actors", '{run="a"}', "8x3 0x40", "8x60"),
    "TouchdownNoUpdates": ("ray_touchdown_updates_total", '{run="a"}', "0+9x3 27x40", "0+9x60"),
    "TouchdownUnsaved": ("ray_touchdown_unsaved_seconds", '{run="a"}', "0+60x40", "60x60"),
    "TouchdownStorageFails": ("ray_touchdown_storage_failures_total", '{run="a"}', "0+1x40", "3x60"),
    "TouchdownDiskFull": ("ray_node_disk_utilization_percentage", '{ip="10.0.0.1"}', "95x40", "60x60"),
}
"""Of each alert: a metric, its labels, and its values from minute to minute in trouble and without."""


@needs_promtool
def test_alerts_fire_in_trouble_and_not_without(tmp_path: Path) -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == TROUBLE.keys()
    names = {name for rule in rules for name in re.findall(r"\bray_\w+", rule["expr"])}
    assert names <= TRAINING_METRICS.keys() | {f"ray_{name}" for name in METRICS_GAUGES}
    prometheus = yaml.safe_load((GRAFANA.parent / "prometheus.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["prometheus"]["volumes"])
    assert mounts["./cluster/alerts.yml"] in prometheus["rule_files"]
    tests = []
    for alert, (metric, labels, trouble, calm) in TROUBLE.items():
        (told,) = re.findall(r'(\w+)="(.*)"', labels)
        for values, fires in ((trouble, True), (calm, False)):
            expected = [{"exp_labels": {told[0]: told[1]}}] if fires else []
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": metric + labels, "values": values}],
                    "alert_rule_test": [{"eval_time": "30m", "alertname": alert, "exp_alerts": expected}],
                }
            )
    texts = {rule["alert"]: rule["annotations"]["summary"] for rule in rules}
    for test in tests:
        for told_of in test["alert_rule_test"]:
            for one in told_of["exp_alerts"]:
                summary = texts[told_of["alertname"]]
                for name, value in one["exp_labels"].items():
                    summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
                summary = summary.replace("{{ $value | humanizeDuration }}", "30m 0s")
                one["exp_annotations"] = {"summary": summary.replace("{{ $value | humanize }}", "95")}
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(file))
