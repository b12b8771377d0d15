"""Which episodes a fleet flies: those of their tickets, whoever flies them, and long ones as often as short ones."""

from typing import Any

import ray

from actors.episode import EpisodeBatch
from actors.fleet import Fleet, Landed
from actors.rollout import RolloutConfig
from tests.actors.examples import assert_same_batches, policy_for, stubborn_policy
from tests.actors.fake_environments import LONG
from tests.actors.fleets import MakeFleet, drive, kill, land


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
