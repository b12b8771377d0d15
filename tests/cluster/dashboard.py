"""The Grafana dashboard, taken apart for tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

GRAFANA = Path(__file__).parents[2] / "cluster" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "touchdown.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


class Query(NamedTuple):
    """What a panel asks of Prometheus."""

    panel: str
    expression: str
    legend: str

    @property
    def filled(self) -> str:
        """With Grafana's variables filled in, as it sends it."""
        return self.expression.replace("$__rate_interval", "20s").replace("$run", ".*")

    @property
    def metrics(self) -> set[str]:
        """The names in it."""
        return set(re.findall(r"\bray_\w+", self.expression))


QUERIES = [
    Query(panel["title"], target["expr"], target["legendFormat"])
    for panel in PANELS
    for target in panel.get("targets", [])
]
