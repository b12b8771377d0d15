"""Fixtures that more than one room's tests need."""

import contextlib
import os
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import psutil
import pytest

from tests.learner.link import Link

hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")  # how slow a busy machine is says nothing of a test
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a test run reports nothing to anyone
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")  # Ray's agents look at every process, every five seconds
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: beside other tests, actors would hardly get a turn


STARTS_RAY = {"ray_cluster", "stack"}
"""Fixtures; tests that start Ray, a browser or machines in another way have the mark ``slow`` of their own."""
LONG = [
    *(
        "test_compare_losses",
        "test_faults",
        "test_lost_machines",
        "test_onprem",
        "test_page",
        "test_app",
        "test_compose",
    ),
    *(
        "test_doom",
        "test_ray_up",
        "test_search",
        "test_signals",
        "test_publish",
        "test_killed_processes",
        "test_trainer",
    ),
    *("test_course", "test_actor_pool", "test_entry", "test_train_command", "test_atari", "test_hindrances"),
    *("test_replay_faults", "test_sharding", "test_script"),
]
"""Files of half a minute and more, the longest first: what comes last is short, so that no process is left waiting."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray, and put long files first."""
    for item in items:
        if STARTS_RAY & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def start_node(cluster: Any, **options: Any) -> Any:
    """A node, tried up to three times: on a busy machine Ray's processes can take longer than it waits for them."""
    for attempt in range(1, 4):
        before = set(psutil.Process().children())
        try:
            return cluster.add_node(**options)
        except Exception:
            if attempt == 3:
                raise
            for process in set(psutil.Process().children()) - before:  # which may still join
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """Ray's own cluster of several nodes on one machine; its head has two CPUs."""
    from ray.cluster_utils import Cluster

    from learner.run.ray_session import small_head

    cluster = Cluster()  # type: ignore[no-untyped-call]
    with small_head():
        start_node(cluster, num_cpus=2, labels={"role": "head"}, object_store_memory=256 * 1024**2)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def ray_cluster(nodes: Any) -> Iterator[None]:
    """A real Ray cluster of two CPUs on this machine, shared by all tests that ask for it."""
    import ray  # here, so that tests of pure code neither import nor start Ray

    ray.init(nodes.address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def joined(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has programs that the test starts join the shared cluster: one of its own would take each of them seconds."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


AddNode = Callable[..., psutil.Process]


@pytest.fixture
def add_node(ray_cluster: None, nodes: Any) -> Iterator[AddNode]:
    """Adds nodes to the shared cluster, by CPUs and labels; gives the raylet of each, with which it ends."""
    added = []

    def add(cpus: int, **labels: str) -> psutil.Process:
        # Nobody reads what a log monitor reads, and of the log files of a whole session that is a minute's work.
        options: dict[str, Any] = {"include_log_monitor": False, "object_store_memory": 100_000_000}
        added.append(start_node(nodes, num_cpus=cpus, labels=labels, **options))
        (raylet,) = added[-1].all_processes["raylet"]
        return psutil.Process(raylet.process.pid)

    yield add
    for node in added:
        nodes.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def s3() -> Iterator[Link]:
    """A link to an S3 server with an empty bucket named ``bucket``, which the environment leads to."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # servers of one process share what they hold
    with Link(host, port) as link, pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{link.port}")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield link
    server.stop()
