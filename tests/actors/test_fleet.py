"""Rollouts reach the learner in order and no older than they may be, and actors evaluate beside them."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import actors.actor
import actors.fleet
from actors.episode import EpisodeBatch
from actors.fleet import Fleet, Landed
from actors.score import Score
from tests.actors.fake_environments import FLY
from tests.actors.fleets import PATIENCE, MakeFleet, drive, land, ordered, start, versions


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
