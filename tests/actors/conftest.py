"""Fixtures of the actors' tests; they import Ray themselves, so that tests of pure code do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from actors.fleet import Fleet
    from actors.rollout import RolloutConfig
    from tests.actors.fleets import MakeFleet


@pytest.fixture(scope="module")
def idle(ray_cluster: None) -> Iterator[list[Any]]:
    """Actors that fly for no fleet now: to start a process takes longer than most tests."""
    import ray

    from tests.serve.served import wait_for

    wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == 1)  # nodes of other files' tests may be going still
    actors: list[Any] = []
    yield actors
    for actor in actors:
        ray.kill(actor)


@pytest.fixture
def make_fleet(ray_cluster: None, idle: list[Any]) -> Iterator[MakeFleet]:
    """Fleets of obedient environments, grounded when the test ends.

    A fleet begins with idle actors, as far as there are any, and takes no CPUs; whom it replaces, it replaces with new
    ones. If ``fresh`` all are new, take CPUs, and end with it. If ``spares`` are given they are the fleet's own.
    """
    from actors.fleet import Fleet
    from actors.fleet_config import FleetConfig
    from tests.actors.fleets import OBEDIENT, ROLLOUT, is_well

    fleets: list[Fleet] = []
    lent: list[list[Any]] = []

    def gather() -> None:
        for left in lent:
            idle.extend(left)
            left.clear()

    def make(
        env_id: str = OBEDIENT,
        rollout: RolloutConfig = ROLLOUT,
        seed: int = 0,
        spares: list[Any] | None = None,
        first_ticket: int = 0,
        unlearned: Sequence[int] = (),
        fresh: bool = False,
        **config: Any,
    ) -> Fleet:
        lend = not fresh and spares is None
        if lend:
            gather()
            spares = [actor for actor in idle if is_well(actor)]
        if not fresh:
            config = {"cpus_per_actor": 0} | config
        fleets.append(Fleet(env_id, rollout, FleetConfig(**config), seed, spares, first_ticket, unlearned))
        if lend and spares is not None:
            idle[:] = spares  # those that it has no use for
            spares.clear()
            lent.append(spares)
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.stop()
    gather()
