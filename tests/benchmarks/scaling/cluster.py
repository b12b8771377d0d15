"""A Ray cluster of many nodes on this machine: a head, a node for the learner, and nodes for actors."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

STORE_BYTES = 300_000_000
"""Of each node's object store: as little as holds the batches of the largest run, so that a leak shows."""
ACTORS = ("ray::RolloutActor", "ray::SimulatedActor")
"""Titles of actors' processes; while one works the method's name follows."""
RAY_VARIABLES = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # A hundred processes that start at once on two cores do not register within the default minute, are killed for
    # it, and start again.
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


@contextlib.contextmanager
def cluster(actor_nodes: int, cpus_per_node: int, cores: Sequence[int] = ()) -> Iterator[None]:
    """The head has no CPUs for actors; the learner has a node of its own; ``ray.init`` has been called.

    Args:
        actor_nodes: nodes with the label role=actor.
        cpus_per_node: CPUs that each of them says it has.
        cores: pin the actor nodes, all processes of each, to these cores of the machine, one each.
    """
    os.environ.update(RAY_VARIABLES)
    everywhere = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="td-") as folder:
        os.environ["RAY_TMPDIR"] = folder  # whoever asks Ray for "the cluster on this machine" is not to find this one
        ray_cluster = Cluster()
        try:
            store: dict[str, Any] = {"object_store_memory": STORE_BYTES}
            ray_cluster.add_node(num_cpus=0, labels={"role": "head"}, include_dashboard=False, **store)
            ray_cluster.add_node(num_cpus=0, labels={"role": "learner"}, **store)
            for index in range(actor_nodes):
                if cores:
                    os.sched_setaffinity(0, {cores[index]})  # inherited by the node and all that it starts
                ray_cluster.add_node(num_cpus=cpus_per_node, labels={"role": "actor"}, **store)
            os.sched_setaffinity(0, everywhere)
            ray.init(ray_cluster.address, logging_level=logging.ERROR, log_to_driver=False)
            yield
        finally:
            os.sched_setaffinity(0, everywhere)
            ray.shutdown()
            ray_cluster.shutdown()


class Memory:
    """Memory of this process and of Ray's below it.

    The processes are looked for once: to read all of /proc every second would cost the driver more than its work does.
    """

    def __init__(self) -> None:
        self._driver = psutil.Process()
        below = self._driver.children(recursive=True)
        self._raylets = [process for process in below if process.name() == "raylet"]
        self._gcs = [process for process in below if process.name() == "gcs_server"]
        self._actors = [process for process in below if "".join(process.cmdline()).startswith(ACTORS)]

    def megabytes(self) -> dict[str, float]:
        """By role; ``store`` is the shared memory that the raylets have touched: the most their stores ever held."""
        raylets = [process.memory_info() for process in self._raylets]
        return {
            "driver": self._driver.memory_info().rss / 1e6,
            "gcs": sum(process.memory_info().rss for process in self._gcs) / 1e6,
            "raylets": sum(memory.rss - memory.shared for memory in raylets) / 1e6,
            "store": sum(memory.shared for memory in raylets) / 1e6,
        }

    def actor_megabytes(self) -> float:
        """Mean proportional share of an actor: what is shared between processes is counted once."""
        return statistics.fmean(process.memory_full_info().pss / 1e6 for process in self._actors)
