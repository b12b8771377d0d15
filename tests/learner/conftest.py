"""Fixtures of the learner's tests."""

import functools
from collections.abc import Iterator

import pytest

from learner.run.spares import Spares
from learner.run.trainer import Trainer


@pytest.fixture(scope="module")
def kept_processes(ray_cluster: None) -> Iterator[None]:
    """Has each run of a module leave its actors and learner to the next: to start them takes longer than most runs."""
    import ray

    spares = Spares()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", functools.partialmethod(Trainer.__init__, spares=spares))
        yield
    for process in (*spares.actors, *spares.learners):
        ray.kill(process)
