"""Fixtures that more than one room's tests need."""

import os
from collections.abc import Iterator

import pytest

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
