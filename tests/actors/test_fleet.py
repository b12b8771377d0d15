import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayError

import actors.actor
import actors.actor_pool
import actors.fleet
from actors.episode import EpisodeBatch
from actors.errors import EnvironmentFault, NonFiniteError, PolicyLostError, UserError
from actors.fleet import Fleet, Landed
from actors.fleet_config import FleetConfig
from actors.rollout import RolloutConfig
from actors.score import Score
from tests.actors.examples import assert_same_batches, policy_for, stubborn_policy
from tests.actors.fake_environments import DIE, FLY, LONG, NAN, RAISE
from tests.conftest import AddNode
from tests.serve.served import wait_for

OBEDIENT = "tests.actors.fake_environments:Obedient-v0"
ROLLOUT = RolloutConfig(n_envs=2, n_steps=8, backend="gymnasium")
PATIENCE = 120
"""Seconds after which a test gives up; none waits for them to pass."""

MakeFleet = Callable[..., Fleet]


@pytest.fixture(scope="module")
def idle(ray_cluster: None) -> Iterator[list[Any]]:
    """Actors that fly for no fleet now: to start a process takes longer than most tests."""
    wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == 1)  # nodes of other files' tests may be going still
    actors: list[Any] = []
    yield actors
    for actor in actors:
        ray.kill(actor)


def kill(actor: Any) -> None:
    """Kill an actor, which Ray does in its own time, and wait until nobody reaches it."""
    ray.kill(actor)
    wait_for(lambda: not is_well(actor))


def is_well(actor: Any) -> bool:
    """Whether an actor answers; one that does not is ended."""
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=PATIENCE)
    except RayError:
        ray.kill(actor)
        return False
    return True


@pytest.fixture
def make_fleet(ray_cluster: None, idle: list[Any]) -> Iterator[MakeFleet]:
    """Fleets of obedient environments, grounded when the test ends.

    A fleet begins with idle actors, as far as there are any, and takes no CPUs; whom it replaces, it replaces with new
    ones. If ``fresh`` all are new, take CPUs, and end with it. If ``spares`` are given they are the fleet's own.
    """
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


def ordered(action: int, version: int = 0) -> ray.ObjectRef[Any]:
    return ray.put(stubborn_policy(OBEDIENT, action, version))


def drive(fleet: Fleet, until: Callable[[], bool], between: Callable[[], object] = lambda: None) -> None:
    """Land what comes down, and do something in between, until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, "this takes too long"
        between()
        if fleet.waiting_for:
            for ref in ray.wait(fleet.waiting_for, num_returns=1, timeout=0.1)[0]:
                fleet.land(ref)


def start(fleet: Fleet, size: int) -> None:
    drive(fleet, lambda: fleet.size == size)


def land(fleet: Fleet, ref: ray.ObjectRef[Any]) -> None:
    """Wait for one rollout and land it; to the fleet, those that nobody lands are still in the air."""
    assert ray.wait([ref], timeout=PATIENCE)[0]
    fleet.land(ref)


def versions(landed: list[Landed]) -> list[int]:
    return [each.report.policy_version for each in landed]


@pytest.mark.parametrize(("max_policy_lag", "bound"), [(0, 3), (2, 9)])
def test_rollouts_are_bounded_while_the_learner_takes_none(
    make_fleet: MakeFleet, max_policy_lag: int, bound: int
) -> None:
    fleet = make_fleet(actors=2, rollouts_per_update=3, max_policy_lag=max_policy_lag)
    start(fleet, 2)
    policy, launched = ordered(FLY), set()

    def launch() -> None:
        fleet.launch(policy, 0)
        launched.update(fleet.waiting_for)

    launch()
    drive(fleet, until=lambda: not fleet.waiting_for, between=launch)
    assert len(launched) == bound
    fleet.in_update = len(fleet.take(0))
    assert fleet.in_update == 3
    launch()
    assert not fleet.waiting_for  # what is being learned from still counts
    fleet.in_update = 0
    launch()
    drive(fleet, until=lambda: not fleet.waiting_for, between=launch)
    assert len(launched) == bound + 3


def test_without_lag_an_update_waits_for_all_and_gets_them_in_order(make_fleet: MakeFleet) -> None:
    fleet, policy = make_fleet(actors=2, rollouts_per_update=2, max_policy_lag=0), ordered(FLY, 4)
    early, late = fleet.waiting_for
    land(fleet, early)
    fleet.launch(policy, 4)
    assert fleet.waiting_for == [late]  # who flies which rollout must not depend on who is ready first
    land(fleet, late)
    fleet.launch(policy, 4)
    first, second = fleet.waiting_for
    land(fleet, second)
    assert fleet.take(4) == []
    land(fleet, first)
    taken = fleet.take(4)
    assert [each.ticket for each in taken] == [0, 1]
    assert fleet.take(4) == []
    batches: list[EpisodeBatch] = ray.get([each.batch for each in taken])
    for batch, each in zip(batches, taken, strict=True):
        assert batch.num_steps == each.report.num_steps == 14  # 2 slots × 8 steps, less a reset in each
        assert set(batch.policy_version) == {4}
        assert each.report.episode_lengths.tolist() == [5, 5]
        assert each.report.episode_returns.tolist() == [5, 5]


def test_rollouts_that_are_too_old_are_dropped_and_counted(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=2, rollouts_per_update=1, max_policy_lag=1)
    start(fleet, 2)
    fleet.launch(ordered(FLY), 0)
    for ref in fleet.waiting_for:
        land(fleet, ref)
    assert fleet.take(2) == []
    assert fleet.dropped == 2
    fleet.launch(ordered(FLY, 2), 2)
    assert len(fleet.waiting_for) == 2  # what was dropped made room
    drive(fleet, until=lambda: not fleet.waiting_for)
    assert versions(fleet.take(2)) == [2]
    assert versions(fleet.take(3)) == [2]  # one version late is what max_policy_lag allows
    assert fleet.dropped == 2


def fly_one_late(fleet: Fleet) -> ray.ObjectRef[Any]:
    """Launch two of version 0 and learn from one; one of version 1 is down too. Gives the one that is in the air."""
    start(fleet, 2)
    fleet.launch(ordered(FLY), 0)
    prompt, late = fleet.waiting_for
    land(fleet, prompt)
    assert versions(fleet.take(0)) == [0]  # the other one will be in time for the next update
    fleet.launch(ordered(FLY, 1), 1)
    (newer,) = [ref for ref in fleet.waiting_for if ref is not late]
    land(fleet, newer)
    return late


def test_an_update_waits_for_a_rollout_that_it_would_make_too_old(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.fleet, "_STRAGGLER", math.inf)
    fleet = make_fleet(actors=2, rollouts_per_update=1, max_policy_lag=1)
    late = fly_one_late(fleet)
    assert fleet.take(1) == []
    land(fleet, late)
    assert versions(fleet.take(1)) == [0]
    assert versions(fleet.take(2)) == [1]
    assert fleet.dropped == 0


def test_an_update_does_not_wait_for_a_straggler(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.fleet, "_STRAGGLER", 0)
    fleet = make_fleet(actors=2, rollouts_per_update=1, max_policy_lag=1)
    late = fly_one_late(fleet)
    assert versions(fleet.take(1)) == [1]
    assert fleet.dropped == 0
    land(fleet, late)
    assert fleet.take(2) == []
    assert fleet.dropped == 1


def test_forgotten_rollouts_are_neither_waited_for_nor_learned_from(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.fleet, "_STRAGGLER", math.inf)
    fleet = make_fleet(actors=2, rollouts_per_update=1, max_policy_lag=1)
    start(fleet, 2)
    fleet.launch(ordered(FLY), 0)
    down, in_the_air = fleet.waiting_for
    land(fleet, down)
    fleet.forget(-1)
    assert fleet.take(0) == []
    fleet.launch(ordered(FLY, 1), 1)
    (again,) = [ref for ref in fleet.waiting_for if ref is not in_the_air]
    land(fleet, again)
    assert [each.ticket for each in fleet.take(1)] == [2]
    land(fleet, in_the_air)
    assert fleet.take(0) == []
    assert fleet.dropped == 0


def episodes_of(*numbers: int) -> RolloutConfig:
    n_envs, episodes_per_env = numbers
    return RolloutConfig(n_envs=n_envs, n_steps=None, episodes_per_env=episodes_per_env, backend="gymnasium")


def test_every_whole_episode_is_learned_from_however_long_it_is(make_fleet: MakeFleet) -> None:
    """Half of them are 1,500 times as long as the others: no lag makes the learner see fewer of those."""
    coin, many = "tests.actors.fake_environments:Coin-v0", 24
    for rollouts_per_update, max_policy_lag in ((1, 1), (1, 2), (2, 1), (1, 4), (2, 3), (3, 0)):
        fleet = make_fleet(
            coin,
            episodes_of(1, 1),
            actors=3,
            rollouts_per_update=rollouts_per_update,
            max_policy_lag=max_policy_lag,
        )
        learned: list[Landed] = []
        version = 0

        def learn(fleet: Fleet = fleet, learned: list[Landed] = learned) -> None:
            nonlocal version
            if taken := fleet.take(version):
                assert all(version - each.report.policy_version <= fleet.config.max_policy_lag for each in taken)
                learned += taken
                version += 1
            if fleet.tickets < many:
                fleet.launch(ray.put(stubborn_policy(coin, 0, version)), version)

        drive(fleet, until=lambda fleet=fleet: fleet.tickets >= many and not fleet.waiting_for, between=learn)
        while len(learned) < fleet.tickets - fleet.tickets % rollouts_per_update:
            learn()
        assert fleet.dropped == 0
        assert sorted(each.ticket for each in learned) == list(range(len(learned)))
        lengths = [int(each.report.episode_lengths[0]) for each in learned]
        assert many / 4 < lengths.count(LONG) < many * 3 / 4
        assert lengths.count(1) == len(lengths) - lengths.count(LONG)
        fleet.stop()


def test_whole_episodes_are_those_of_their_tickets(make_fleet: MakeFleet) -> None:
    """Whoever flies them: one actor or two, one that was replaced, or a run that goes on."""
    policy = ray.put(policy_for("CartPole-v1"))

    def fly(count: int, kill_at: int = -1, **arguments: Any) -> tuple[dict[str, Any], dict[int, EpisodeBatch]]:
        fleet = make_fleet("CartPole-v1", episodes_of(2, 2), 7, rollouts_per_update=2, **arguments)
        taken: list[Landed] = []
        killed = False

        def learn() -> None:
            nonlocal killed
            fleet.launch(policy, 0)
            if len(taken) >= kill_at >= 0 and not killed:
                killed = True
                kill(fleet._pool.slots[0].actor)
            while killed and not fleet.restarts:  # what it had flown by then counts, and what it flies next is lost
                fleet.launch(policy, 0)
                land(fleet, next(ref for ref, flight in fleet._flights.items() if flight.slot.index == 0))
            taken.extend(fleet.take(0))

        drive(fleet, until=lambda: len(taken) == count, between=learn)
        assert fleet.restarts == (kill_at >= 0)
        flown = {each.ticket: ray.get(each.batch) for each in taken}
        begun = {"first_ticket": fleet.tickets, "unlearned": fleet.unlearned}
        fleet.forget(-1)
        fleet.go_back(4, [1])
        assert fleet.unlearned == [1, *range(4, fleet.tickets)]
        fleet.stop()
        return begun, flown

    _, expected = fly(6, actors=1, max_policy_lag=0)
    assert sorted(expected) == list(range(6))
    begun, flown = fly(4, kill_at=2, actors=2, max_policy_lag=1)
    assert sorted([*flown, *begun["unlearned"]]) == list(range(begun["first_ticket"]))
    _, rest = fly(2, actors=2, max_policy_lag=0, **begun)
    assert sorted(flown | rest) == list(range(6))
    for ticket, batch in (flown | rest).items():
        assert_same_batches(batch, expected[ticket])


def test_fragments_of_a_run_that_goes_on_are_new(make_fleet: MakeFleet) -> None:
    policy = ray.put(policy_for("CartPole-v1"))

    def fly(first_ticket: int) -> tuple[int, EpisodeBatch]:
        fleet = make_fleet("CartPole-v1", RolloutConfig(4, 50), actors=1, max_policy_lag=0, first_ticket=first_ticket)
        taken: list[Landed] = []

        def learn() -> None:
            fleet.launch(policy, 0)
            taken.extend(fleet.take(0))

        drive(fleet, until=lambda: len(taken) == 3, between=learn)
        fleet.stop()
        return fleet.tickets, EpisodeBatch.concatenate(ray.get([each.batch for each in taken]))

    tickets, first = fly(0)
    _, second = fly(tickets)
    seen = {tuple(observation) for observation in first.observations.tolist()}
    assert not seen.intersection(map(tuple, second.observations.tolist()))


class Learner:
    def policy(self) -> None:
        time.sleep(PATIENCE)


def lost_policy() -> ray.ObjectRef[Any]:
    """What a learner was to make when it was killed."""
    learner_class: Any = ray.remote(num_cpus=0)(Learner)
    learner = learner_class.remote()
    policy: ray.ObjectRef[Any] = learner.policy.remote()
    ray.kill(learner)
    return policy


def test_a_lost_policy_costs_no_actor_and_no_rollout_of_another(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=2, rollouts_per_update=1, max_policy_lag=1)
    start(fleet, 2)
    fleet.launch(ordered(FLY), 0)
    first, in_the_air = fleet.waiting_for
    land(fleet, first)
    assert versions(fleet.take(0)) == [0]
    fleet.launch(lost_policy(), 1)
    (lost,) = [ref for ref in fleet.waiting_for if ref is not in_the_air]
    with pytest.raises(PolicyLostError):
        land(fleet, lost)
    fleet.forget(0)
    land(fleet, in_the_air)
    assert versions(fleet.take(0)) == [0]
    fleet.launch(ordered(FLY, 1), 1)
    assert len(fleet.waiting_for) == 2
    drive(fleet, until=lambda: not fleet.waiting_for)
    assert versions(fleet.take(1)) == [1]
    assert fleet.restarts == 0


def test_a_policy_that_was_given_up_is_lost_in_silence(make_fleet: MakeFleet) -> None:
    """One death of the learner, told once, however many rollouts had the policy."""
    fleet = make_fleet(actors=2, rollouts_per_update=2, max_policy_lag=0)
    start(fleet, 2)
    fleet.launch(lost_policy(), 0)
    first, second = fleet.waiting_for
    with pytest.raises(PolicyLostError):
        land(fleet, first)
    fleet.forget(0)
    fleet.launch(ordered(FLY), 0)
    land(fleet, second)
    taken: list[Landed] = []

    def learn() -> None:
        fleet.launch(ordered(FLY), 0)
        taken.extend(fleet.take(0))

    drive(fleet, until=lambda: len(taken) == 2, between=learn)
    assert fleet.restarts == 0


def test_a_killed_actor_is_replaced_and_its_rollout_flown_again(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=2, rollouts_per_update=2, max_policy_lag=0)
    start(fleet, 2)
    policy, victim = ordered(FLY), fleet._pool.slots[0].actor
    process = ray.get(victim.__ray_call__.remote(lambda actor: os.getpid()))
    fleet.launch(policy, 0)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(RayActorError):
        ray.get(victim.__ray_ready__.remote(), timeout=PATIENCE)
    taken: list[Landed] = []

    def learn() -> None:
        fleet.launch(policy, 0)
        taken.extend(fleet.take(0))

    drive(fleet, until=lambda: len(taken) == 4, between=learn)
    assert [each.ticket for each in taken] == sorted(each.ticket for each in taken)
    assert all(batch.num_steps > 0 for batch in ray.get([each.batch for each in taken]))
    assert fleet.restarts == 1
    assert fleet.size == 2


def test_an_environment_that_takes_its_process_down_is_replaced(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=1)
    start(fleet, 1)
    fleet.launch(ordered(DIE), 0)
    drive(fleet, until=lambda: fleet.restarts == 1 and fleet.size == 1)
    fleet.launch(ordered(FLY), 0)
    drive(fleet, until=lambda: not fleet.waiting_for)
    assert len(fleet.take(0)) == 1


def test_an_environment_that_always_takes_its_process_down_stops_the_run(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.fleet, "_MAX_DEATHS", 2)
    fleet, policy = make_fleet(actors=1), ordered(DIE)
    with pytest.raises(RayActorError):
        drive(fleet, until=lambda: False, between=lambda: fleet.launch(policy, 0))
    assert fleet.restarts == 1


def test_an_environment_that_raises_is_replaced_until_it_has_raised_too_often_in_a_row(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=1, max_failures=2)
    start(fleet, 1)

    def fly(action: int) -> None:
        fleet.launch(ordered(action), 0)
        drive(fleet, until=lambda: fleet.size == 1 and not fleet.waiting_for)

    fly(RAISE)
    assert fleet.restarts == 1
    fly(FLY)  # begins a new row
    assert len(fleet.take(0)) == 1
    fly(RAISE)
    assert fleet.restarts == 2
    with pytest.raises(EnvironmentFault) as caught:
        fly(RAISE)
    assert str(caught.value) == f"{OBEDIENT}: step raised RuntimeError: the lander is on fire"
    assert "fake_environments.py" in caught.value.details  # the traceback leads to the line
    assert fleet.restarts == 2


def test_a_nan_stops_the_run_at_once(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=1)
    start(fleet, 1)
    fleet.launch(ordered(NAN), 0)
    with pytest.raises(NonFiniteError, match="Obedient-v0: the observation"):
        drive(fleet, until=lambda: False)
    assert fleet.restarts == 0


def test_an_actor_that_cannot_fly_the_environment_says_why_at_once(make_fleet: MakeFleet) -> None:
    fleet = make_fleet("CartPoll-v1", actors=1)
    with pytest.raises(UserError, match="unknown environment 'CartPoll-v1'; did you mean CartPole-v1"):
        drive(fleet, until=lambda: fleet.restarts > 0)


def test_an_environment_that_raises_as_it_is_made_stops_the_run(make_fleet: MakeFleet) -> None:
    fleet = make_fleet("tests.actors.fake_environments:Unmakeable-v0", actors=1, max_failures=2)
    with pytest.raises(UserError, match="cannot be made: __init__ raised RuntimeError: the hangar is locked"):
        drive(fleet, until=lambda: fleet.restarts > 2)


def test_without_lag_one_seed_flies_the_same_twice(make_fleet: MakeFleet) -> None:
    policy = ray.put(policy_for("CartPole-v1"))

    def fly() -> list[EpisodeBatch]:
        fleet = make_fleet("CartPole-v1", actors=2, rollouts_per_update=3, max_policy_lag=0, seed=7)
        taken: list[Landed] = []

        def learn() -> None:
            fleet.launch(policy, 0)
            taken.extend(fleet.take(0))

        drive(fleet, until=lambda: len(taken) == 6, between=learn)
        batches: list[EpisodeBatch] = ray.get([each.batch for each in taken])
        fleet.stop()
        return batches

    first, second = fly(), fly()
    assert len(first) == 6
    for one, two in zip(first, second, strict=True):
        assert_same_batches(one, two)
    starts = [batch.observations[0].tolist() for batch in first]
    assert len({tuple(start) for start in starts}) == 6  # no two actors fly the same


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


def test_a_slow_actor_costs_the_others_nothing(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """Three fly; then one of them takes as long for a rollout as the others for sixty."""
    fleet = make_fleet(actors=3, rollouts_per_update=6)
    start(fleet, 3)
    version, idle, launches = 0, 0, 0

    def fly() -> None:
        nonlocal version, idle, launches
        version += bool(fleet.take(version))
        fleet.launch(ordered(FLY, version), version)
        launches += 1
        idle += not {1, 2} <= {flight.slot.index for flight in fleet._flights.values()}

    drive(fleet, until=lambda: min(fleet.flown[index] for index in range(3)) > 0, between=fly)
    here, go_on = tmp_path / "here", tmp_path / "go on"

    def slow_down(actor: Any) -> None:
        collect = actor._rollout.collect

        def collect_slowly(*arguments: Any) -> Any:
            here.touch()
            while not go_on.exists():
                time.sleep(0.01)
            return collect(*arguments)

        actor._rollout.collect = collect_slowly

    ray.get(fleet._pool.slots[0].actor.__ray_call__.remote(slow_down))
    drive(fleet, until=here.exists, between=fly)
    (slow,) = [flight for flight in fleet._flights.values() if flight.slot.index == 0]
    drive(fleet, until=lambda: fleet._straggles(slow), between=fly)
    before, was = version, fleet.flown.copy()
    idle = launches = 0
    drive(fleet, until=lambda: (fleet.flown - was).total() >= 60 * 14, between=fly)  # 14 steps make a rollout
    assert fleet.flown[0] == was[0]
    assert version - before >= 8
    assert idle < launches / 4
    go_on.touch()
    drive(fleet, until=lambda: fleet.flown[0] > was[0], between=fly)


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


def evaluate(fleet: Fleet, score: Score, between: Callable[[], object] = lambda: None) -> None:
    """Have a score flown to its end."""
    ended: list[Score] = []

    def step() -> None:
        fleet.launch_evaluation()
        between()
        if down := fleet.evaluated():
            ended.append(down)

    fleet.evaluate(score)
    drive(fleet, lambda: bool(ended), step)
    assert ended == [score]
    assert not fleet.is_evaluating


def test_actors_evaluate_beside_their_rollouts(make_fleet: MakeFleet) -> None:
    fleet, policy = make_fleet(actors=2, rollouts_per_update=1, max_policy_lag=1), ordered(FLY, 4)
    start(fleet, 2)
    landed: list[Landed] = []

    def train() -> None:
        fleet.launch(policy, 4)
        landed.extend(fleet.take(4))

    evaluate(fleet, score := Score(policy, 4, range(30), 2), train)
    returns, lengths, _ = score.flown
    assert returns.tolist() == lengths.tolist() == [5] * 30  # no step of a rollout, and no rollout's step, among them
    drive(fleet, lambda: len(landed) >= 4, train)
    assert {length for each in landed for length in each.report.episode_lengths.tolist()} == {5}
    assert fleet.restarts == 0


def test_what_an_actor_was_evaluating_when_it_died_is_flown_again(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(actors=2)
    start(fleet, 2)
    victim = fleet._pool.slots[0].actor

    def never_land(_: Any) -> None:
        actors.actor.fly_episodes = lambda *_, **__: time.sleep(PATIENCE)

    ray.get(victim.__ray_call__.remote(never_land))
    score = Score(ordered(FLY), 0, range(40), 2)
    fleet.evaluate(score)
    fleet.launch_evaluation()
    ray.kill(victim)
    evaluate(fleet, score)
    assert fleet.restarts == 1
    assert score.flown[0].tolist() == [5] * 40


def test_where_runs_repeat_rollouts_wait_for_the_evaluation(make_fleet: MakeFleet) -> None:
    fleet, policy = make_fleet(actors=1, max_policy_lag=0), ordered(FLY)
    start(fleet, 1)
    fleet.evaluate(Score(policy, 0, range(10), 1))
    fleet.launch(policy, 0)
    assert not fleet.waiting_for
    fleet.forget(-1)  # the policy is lost with its learner
    assert not fleet.is_evaluating
    fleet.launch(policy, 0)
    assert fleet.waiting_for
