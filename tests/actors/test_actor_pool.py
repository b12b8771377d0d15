"""How many actors a fleet has, on which nodes they start, and to whom they go when it ends."""

import math
from typing import Any

import pytest
import ray

import actors.actor_pool
from actors.errors import UserError
from actors.fleet_config import FleetConfig
from tests.actors.examples import policy_for
from tests.actors.fake_environments import FLY
from tests.actors.fleets import MakeFleet, drive, is_well, kill, land, ordered, start
from tests.conftest import AddNode
from tests.serve.served import wait_for


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"actors": "auto", "rollouts_per_update": 8}, 2),  # the CPUs of the cluster
        ({"actors": "auto", "rollouts_per_update": 8, "cpus_per_actor": 0.5}, 4),
        ({"actors": "auto", "rollouts_per_update": 8, "cpus_per_actor": 2}, 1),
        ({"actors": "auto", "max_policy_lag": 0}, 1),  # no use for more
        ({"actors": "auto", "rollouts_per_update": 8, "actor_labels": {"planet": "moon"}}, 1),  # there is no such node
        ({"actors": 5, "max_policy_lag": 1}, 2),
    ],
)
def test_the_fleet_is_as_large_as_it_is_useful(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], expected: int
) -> None:
    monkeypatch.setattr(actors.actor_pool, "_LOOK_SECONDS", 0.1)
    fleet = make_fleet(fresh=True, **config)

    def look() -> int:
        fleet.resize()
        return len(fleet.waiting_for)

    wait_for(lambda: look() == expected)  # others may just be ending
    for _ in range(5):
        assert look() <= expected
    fleet.stop()
    assert fleet.waiting_for == []


def test_the_fleet_follows_nodes_with_its_labels(make_fleet: MakeFleet, add_node: AddNode) -> None:
    moon = add_node(2, planet="moon")
    fleet = make_fleet(fresh=True, actors="auto", rollouts_per_update=8, actor_labels={"planet": "moon"})
    policy = ordered(FLY)

    def fly() -> None:
        fleet.resize()
        fleet.launch(policy, 0)
        fleet.take(0)

    drive(fleet, until=lambda: fleet.size == 2, between=fly)
    (home,) = [node["NodeID"] for node in ray.nodes() if node["Labels"].get("planet") == "moon"]
    for slot in fleet._pool.slots:
        assert ray.get(slot.actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())) == home
    moon.terminate()  # the node leaves
    drive(fleet, until=lambda: fleet.size == 0 and len(fleet.waiting_for) == 1, between=fly)


def test_fleets_share_the_free_cpus_and_give_them_back(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two on two CPUs, of which something else takes one in the end."""
    monkeypatch.setattr(actors.actor_pool, "_LOOK_SECONDS", 0.1)
    kind: dict[str, Any] = {"fresh": True, "actors": "auto", "rollouts_per_update": 8}
    first = make_fleet(**kind)
    drive(first, until=lambda: len(first._pool.slots) == 2, between=first.resize)
    second = make_fleet(**kind)

    def look() -> None:
        for fleet in (first, second):
            fleet.resize()
        for ref in ray.wait(second.waiting_for, num_returns=1, timeout=0.01)[0] if second.waiting_for else []:
            second.land(ref)

    drive(first, until=lambda: first.size == second.size == 1, between=look)
    assert len(first._pool.slots) == len(second._pool.slots) == 1
    second.stop()
    drive(first, until=lambda: len(first._pool.slots) == 2, between=first.resize)
    first.stop()
    other: Any = ray.remote(Taking).options(num_cpus=1).remote()
    ray.get(other.__ray_ready__.remote())
    third = make_fleet(**kind)
    assert len(third.waiting_for) == 1
    ray.kill(other)
    drive(third, until=lambda: len(third._pool.slots) == 2, between=third.resize)


class Taking:
    """Takes what it is given."""


def test_a_fleet_that_shrinks_keeps_those_that_fly(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a node goes its actor; the one in its place has nowhere to start, and must not cost one that flies."""
    fleet = make_fleet(actors="auto", rollouts_per_update=8)
    start(fleet, 2)
    lost, flying = (slot.actor for slot in fleet._pool.slots)
    kill(lost)
    drive(fleet, until=lambda: fleet.restarts == 1, between=lambda: fleet.launch(ordered(FLY), 0))
    for room, indices in ((1, [1]), (2, [0, 1])):
        monkeypatch.setattr(fleet._pool._room, "look", lambda _claim, room=room: room)

        def look(indices: list[int] = indices) -> bool:
            fleet._pool._resized = -math.inf
            fleet.resize()
            return [slot.index for slot in fleet._pool.slots] == indices

        wait_for(look)
        assert [slot.index for slot in fleet._pool.slots] == indices
        assert fleet._pool.slots[-1].actor is flying
    start(fleet, 2)


def test_a_fleet_starts_and_stops(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(fresh=True, actors=1, rollouts_per_update=4)
    assert fleet.backend is None
    start(fleet, 1)
    assert fleet.backend == "gymnasium"
    actor = fleet._pool.slots[0].actor
    fleet.launch(ordered(FLY), 0)
    assert len(fleet.waiting_for) == 1  # there is room for eight, but an actor flies one at a time
    fleet.stop()
    assert fleet.waiting_for == []
    assert fleet.size == 0
    wait_for(lambda: not is_well(actor))


def test_a_fleet_leaves_its_actors_for_the_next(make_fleet: MakeFleet, idle: list[Any]) -> None:
    """A dead one among them is replaced like any other."""
    spares, idle[:2] = idle[:2], []
    first = make_fleet(actors=2, rollouts_per_update=2, spares=spares)
    start(first, 2)
    first.launch(ordered(FLY), 0)
    actors = {slot.actor for slot in first._pool.slots}
    first.stop()
    assert set(spares) == actors
    kill(spares[-1])
    second = make_fleet("CartPole-v1", actors=2, rollouts_per_update=2, spares=spares)
    assert {slot.actor for slot in second._pool.slots} == actors
    assert not spares
    start(second, 2)
    assert second.restarts == 1
    assert len({slot.actor for slot in second._pool.slots} & actors) == 1
    second.launch(ray.put(policy_for("CartPole-v1")), 0)
    land(second, second.waiting_for[0])
    land(second, second.waiting_for[0])
    batch = ray.get(second.take(0)[0].batch)
    assert batch.observations.shape[1] == 4, "it flies what the second fleet flies"
    second.stop()
    idle += spares


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"actors": 0}, "actors must be 1 or more, or auto, not 0"),
        ({"actors": "many"}, "actors must be 1 or more, or auto, not many"),
        ({"rollouts_per_update": 0}, "rollouts_per_update must be 1 or more"),
        ({"max_policy_lag": -1}, "max_policy_lag must be 0 or more"),
        ({"max_failures": 0}, "max_failures must be 1 or more"),
        ({"cpus_per_actor": -1}, "cpus_per_actor must be zero or more"),
        ({"cpus_per_actor": math.nan}, "cpus_per_actor must be zero or more"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FleetConfig(**fields)
