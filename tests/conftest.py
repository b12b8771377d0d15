"""Fixtures that more than one room's tests need."""

import os
import urllib.request
from collections.abc import Iterator

import pytest

from tests.learner.link import Link

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a test run reports nothing to anyone


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A real Ray cluster of two CPUs on this machine, shared by all tests that ask for it."""
    import ray  # here, so that tests of pure code neither import nor start Ray

    ray.init(
        address="local",  # never the cluster that RAY_ADDRESS may name
        num_cpus=2,
        object_store_memory=256 * 1024**2,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


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
