"""What a fleet loses it replaces and flies again, and what would only be lost again stops the run with its cause."""

import os
import signal
import time
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

import actors.fleet
from actors.errors import EnvironmentFault, NonFiniteError, PolicyLostError, UserError
from actors.fleet import Landed
from tests.actors.fake_environments import DIE, FLY, NAN, RAISE
from tests.actors.fleets import OBEDIENT, PATIENCE, MakeFleet, drive, land, ordered, start, versions


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
    monkeypatch.setattr(actors.fleet, "_MAX_EARLY_DEATHS", 2)
    fleet, policy = make_fleet(actors=1), ordered(DIE)
    with pytest.raises(EnvironmentFault, match="Obedient-v0: the processes that fly it have died 2 times in a row"):
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
    assert "fake_environments/wrong.py" in caught.value.details  # the traceback leads to the line
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
