"""How far the cluster can grow: the machines that its autoscaler may start, read where Ray's autoscaler reads them."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

log = logging.getLogger("touchdown")

_CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where ``ray up`` puts the cluster's file on its head; Ray Tune looks there too."""
_NAME, _NAMESPACE = "RAY_CLUSTER_NAME", "RAY_CLUSTER_NAMESPACE"
"""What KubeRay's operator tells every container of a cluster; the head's may read the RayCluster if it scales."""
_KEPT_SECONDS = 60.0


class Kind(NamedTuple):
    """One kind of machine: how many there may be, and what Ray would take each for."""

    machines: int
    labels: Mapping[str, str]
    resources: Mapping[str, float]


class Growth:
    """What the autoscaler may start, those machines included that it has started."""

    def __init__(self) -> None:
        self._kinds: Sequence[Kind] = ()
        self._read = -math.inf
        self._warned = False

    def kinds(self) -> Sequence[Kind]:
        """None where nothing scales the cluster. Looks once a minute; Kubernetes can take one to answer."""
        if time.monotonic() - self._read > _KEPT_SECONDS:
            self._read = time.monotonic()
            if (path := _CLUSTER_FILE.expanduser()).exists():
                self._kinds = _kinds(yaml.safe_load(path.read_text()))
            elif name := os.environ.get(_NAME):
                self._ask(name, os.environ.get(_NAMESPACE, "default"))
        return self._kinds

    def _ask(self, name: str, namespace: str) -> None:
        """Read the RayCluster from Kubernetes; what was read before stays if that fails."""
        from ray.autoscaler._private.kuberay import autoscaling_config, node_provider  # what only Kubernetes needs

        logging.getLogger(node_provider.__name__).setLevel(logging.WARNING)  # each minute: that it reads its token
        try:
            cluster = node_provider.KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}")
        except OSError as error:  # no token here; of requests: no answer, or no right to ask
            if not self._warned:
                log.warning(
                    "actors: auto asks for no machines here, a number would: how far the cluster may grow cannot be "
                    "read from Kubernetes (RayCluster %s): %s",
                    name,
                    error,
                )
            self._warned = True
            return
        if cluster["spec"].get("enableInTreeAutoscaling"):
            self._kinds = _kinds(autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))


def _kinds(file: Mapping[str, Any]) -> Sequence[Kind]:
    """The kinds of a cluster's file, in the form of ``ray up``, within what it allows altogether."""
    kinds, left = [], int(file.get("max_workers", 0))
    for it in file.get("available_node_types", {}).values():
        machines = min(left, int(it.get("max_workers", 0)))
        left -= machines
        kinds.append(Kind(machines, it.get("labels", {}), it.get("resources", {})))
    return kinds
