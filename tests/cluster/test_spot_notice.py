"""A spot machine hears from its cloud that it will be taken, and tells the cluster: a metadata server plays each."""

from __future__ import annotations

import http.server
import importlib.util
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from actors.room import draining
from tests.cluster.machines import REPOSITORY
from tests.cluster.metadata import Metadata
from tests.conftest import start_node
from tests.serve.served import wait_for

SPEC = importlib.util.spec_from_file_location("spot_notice", REPOSITORY / "cluster/spot_notice.py")
assert SPEC
assert SPEC.loader
spot_notice: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(spot_notice)

END = "2035-01-02T03:04:05Z"
SECONDS = 2_051_319_845


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Metadata]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(spot_notice, "_METADATA", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(Metadata, "end", None)
        yield Metadata
        server.shutdown()


def test_a_notice_of_aws(metadata: type[Metadata]) -> None:
    assert spot_notice.aws() is None
    metadata.end = END
    assert spot_notice.aws() == SECONDS


def test_a_notice_of_google_cloud(metadata: type[Metadata]) -> None:
    assert spot_notice.gcp() is None
    metadata.end = END
    assert time.time() < spot_notice.gcp() <= time.time() + 30


def test_no_metadata_are_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_notice, "_METADATA", "http://127.0.0.1:1")
    assert spot_notice.aws() is None
    assert spot_notice.gcp() is None


def alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def test_the_node_of_this_machine_drains(
    metadata: type[Metadata],
    ray_cluster: None,
    nodes: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, gcs = "127.0.0.2", ray.get_runtime_context().gcs_address
    doomed = start_node(nodes, num_cpus=1, node_ip_address=here, object_store_memory=100_000_000)
    try:
        metadata.end = END
        monkeypatch.setattr(spot_notice, "get_node_ip_address", lambda _: here)
        monkeypatch.setattr("sys.argv", ["spot_notice", "aws", gcs])
        spot_notice.main()
        assert "its node is draining" in capsys.readouterr().out
        # One that has something to do drains; one that has not ends at once.
        wait_for(lambda: doomed.node_id in draining() or doomed.node_id not in alive(), "the node drains")
        monkeypatch.setattr(spot_notice, "get_node_ip_address", lambda _: "127.0.0.3")
        assert spot_notice.drain(gcs, SECONDS) == "no node at 127.0.0.3 is up"
    finally:
        nodes.remove_node(doomed, allow_graceful=False)
