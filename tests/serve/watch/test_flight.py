"""A flight: flown as Gymnasium flies it, by the policy that is served now or by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.box2d.lunar_lander import heuristic

from actors.environments import describe, fitting
from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.policy import Policy
from serve.watch.flight import Flight, Frame, Landing
from serve.watch.lander import engines
from serve.watch.targets import Target
from tests.actors.examples import Counting, policy_for, random_policy, stubborn_policy
from tests.serve.served import valued
from tests.serve.watching import saved

LANDER = "LunarLander-v3"


def flight_of(directory: Path, policy: Policy, **options: Any) -> Flight:
    return Flight(saved(directory, {"one": policy}), "one", **options)


def fly(flight: Flight) -> list[Frame]:
    frames = [flight.first_frame()]
    while not flight.over:
        frames.append(flight.step())
    return frames


@pytest.mark.parametrize("env_id", [LANDER, "LunarLanderContinuous-v3", "Beresheet-v2", "CartPole-v1", "Pendulum-v1"])
def test_a_greedy_flight_scores_what_an_evaluation_does(env_id: str, tmp_path: Path) -> None:
    policy = policy_for(env_id)
    flight = flight_of(tmp_path, policy, seed=5)
    landings = []
    for seed in (5, 6):
        assert flight.seed == seed
        frames = fly(flight)
        landings.append(flight.landed())
        assert frames[-1].total == pytest.approx(sum(frame.reward for frame in frames), abs=0.01 * len(frames))
        flight.begin(flight.seed + 1)
    returns, lengths, _ = fly_episodes(policy, [5, 6], slots=1)
    assert [landing.total for landing in landings] == pytest.approx(returns, abs=0.006)
    assert [landing.steps for landing in landings] == lengths.tolist()


def test_a_sampled_flight_is_made_again_by_its_seed(tmp_path: Path) -> None:
    flight = flight_of(tmp_path, policy_for(LANDER), seed=3, sampled=True)
    first = fly(flight)
    flight.begin(3)
    assert fly(flight) == first
    flight.begin(3)
    flight.sampled = False
    assert fly(flight) != first


def for_a_return(env_id: str = LANDER, **fields: Any) -> Policy:
    network: dict[str, Any] = {"memory": "transformer", "memory_size": 8, "memory_window": 5}
    return policy_for(env_id, target_return=60.0, **network, **fields)


@pytest.mark.parametrize("sampled", [None, False])
def test_a_flight_for_a_return_is_what_an_evaluation_flies(sampled: bool | None, tmp_path: Path) -> None:
    policy = for_a_return()
    flight = flight_of(tmp_path, policy, seed=5, sampled=sampled)
    assert flight.sampled == (sampled is None)
    frames = fly(flight)
    assert {frame.target for frame in frames} == {flight.landed().target} == {60}
    (expected,), _, _ = fly_episodes(policy, [5], deterministic=not flight.sampled)
    assert flight.landed().total == pytest.approx(expected, abs=0.006)
    flight.ask(-30)
    flight.begin(5)
    fly(flight)
    (expected,), _, _ = fly_episodes(policy.asked_for(-30), [5], deterministic=not flight.sampled)
    assert flight.landed().total == pytest.approx(expected, abs=0.006)
    flight.ask(None)
    assert flight.begin(5).target == Target(60, 0, 120)


def test_another_return_is_asked_for_in_flight(tmp_path: Path) -> None:
    flight = flight_of(tmp_path, for_a_return(), seed=5)
    for target in (60, 200, -3.5):
        flight.ask(target)
        assert flight.step().target == target
        assert flight._memory["core"][0, 8] == pytest.approx(target - flight.total, abs=1e-4)
    with pytest.raises(UserError, match="one acts for no return in particular: ask it for none"):
        flight_of(tmp_path / "plain", policy_for(LANDER)).ask(3)


@pytest.mark.parametrize("env_id", [LANDER, "LunarLanderContinuous-v3"])
def test_a_policy_remembers_what_the_viewer_did(env_id: str, tmp_path: Path) -> None:
    policy = for_a_return(env_id)
    flight = flight_of(tmp_path, policy, seed=5)
    for stick, flown in ((1, [0, 1, 0, 0]), (3, [0, 0, 0, 1])):
        flight.take(stick)
        flight.step()
        remembered = flight._memory["core"][0, 10 : 10 + policy.spec.action.inputs]
        assert remembered.tolist() == (flown if env_id == LANDER else [0, stick - 2])


def test_a_memory_lasts_as_long_as_its_episode(tmp_path: Path) -> None:
    plain = policy_for("tests.actors.fake_environments:Counted-v0")
    policies = saved(tmp_path, {"one": plain}, ["tests.actors.fake_environments"])
    policies._served["one"] = dataclasses.replace(policies["one"], policy=Counting(plain.spec, plain.weights))
    flight = Flight(policies, "one", seed=0)
    for seed in (0, 1):
        flight.begin(seed)
        assert fly(flight)[-1].total == 3 + seed


@pytest.mark.parametrize(
    ("name", "actions", "held"),
    [
        ("Cells", [f"action {i}" for i in range(-2, 3)], -1),
        ("Choices", ["choice 0: 1", "choice 0: 2", "choice 0: 3", "choice 1: 0", "choice 1: 1"], None),
        ("Switches", [f"switch {i}" for i in range(3)], None),
        ("Parts", [f"action {i}" for i in range(3)], 1),
    ],
)
def test_actions_of_every_kind_are_named_and_told(
    name: str, actions: list[str], held: int | None, tmp_path: Path
) -> None:
    policy = policy_for(f"tests.actors.fake_environments:{name}-v0")
    flight = Flight(saved(tmp_path, {"one": policy}, ["tests.actors.fake_environments"]), "one", seed=0)
    assert flight.scene.actions == actions
    frame = flight.step()
    flown = policy.act(policy.spec.observation.stack([flight._observation]))[0]
    assert frame.action == (np.ravel(flown).tolist() if flown.ndim else int(flown))
    assert len(frame.shown["probabilities"]) == len(actions)
    probabilities = np.array(frame.shown["probabilities"])
    likely = np.flatnonzero(probabilities > 0.5) if name == "Switches" else [probabilities.argmax()]
    assert set(likely) <= set(frame.chosen)
    if held is None:
        assert flight.scene.stick is None
    else:
        flight.begin()
        flight.take(1)
        frame = flight.step()
        assert (frame.action, frame.chosen) == (held, [1])


def test_actions_of_several_parts_are_told_side_by_side(tmp_path: Path) -> None:
    policy = policy_for("tests.actors.fake_environments:Orders-v0")
    flight = Flight(saved(tmp_path, {"one": policy}, ["tests.actors.fake_environments"]), "one", seed=0)
    assert flight.scene.actions[2:5] == ["lift: action 1", "arms.0: component 0", "arms.0: component 1"]
    assert flight.scene.bounds == [*[None] * 3, (3, 5), (3, 5), *[None] * 7]
    frame = flight.step()
    actions = policy.act(policy.spec.observation.stack([flight._observation]))
    (flown,) = fitting(actions, flight._env.action_space)
    numbers = [flown["lift"], *flown["arms"][0].ravel(), *flown["arms"][1], *flown["gears"]]
    assert frame.action == pytest.approx(numbers, abs=1e-3)
    assert [x is not None for x in frame.shown["mean"]] == [False] * 3 + [True] * 2 + [False] * 7
    assert [x is not None for x in frame.shown["probabilities"]] == [True] * 3 + [False] * 2 + [True] * 7
    assert len(frame.chosen) == 3 + flown["arms"][1].sum()


def test_a_continuous_action_of_rank_0_is_told_as_it_is(tmp_path: Path) -> None:
    policy = policy_for("tests.actors.fake_environments:Scalar-v0")
    flight = Flight(saved(tmp_path, {"one": policy}, ["tests.actors.fake_environments"]), "one", seed=0)
    frame = flight.step()
    assert frame.action == pytest.approx([float(policy.act(np.zeros((1, 1), np.float32))[0])], abs=1e-3)
    assert frame.chosen == []


def test_values_are_told_to_five_digits_whatever_their_size(tmp_path: Path) -> None:
    policy = valued("CartPole-v1", 123456.7, -0.00012345678)
    frame = flight_of(tmp_path, policy, seed=0).step()
    assert frame.shown == {"q_values": [123460, -0.00012346]}
    assert frame.chosen == [0]


def test_what_a_frame_tells(tmp_path: Path) -> None:
    policy = policy_for(LANDER)
    flight = flight_of(tmp_path, policy, seed=1)
    start = flight.first_frame()
    assert (start.t, start.total, start.action, start.shown) == (0, 0, None, {})
    observation = np.asarray(flight._observation, np.float32)
    frame = flight.step()
    distribution: Any = policy.distribution
    expected = distribution.probabilities(policy.forward(observation[None]))[0]
    assert frame.shown == {"probabilities": pytest.approx(expected, abs=6e-4)}
    assert frame.action == int(expected.argmax())
    assert frame.lander is not None
    after = flight._observation  # in the environment's own units
    assert frame.lander.x == pytest.approx(10 + 10 * after[0], abs=1e-3)
    assert flight.scene.moon is not None
    assert frame.lander.y - flight.scene.moon.rest == pytest.approx(20 / 3 * after[1], abs=2e-3)
    assert frame.lander.vx == pytest.approx(5 * after[2], abs=1e-3)
    assert frame.lander.vy == pytest.approx(7.5 * after[3], abs=1e-3)
    assert frame.lander.angle == pytest.approx(after[4], abs=1e-4)


def test_the_scene_is_the_environments(tmp_path: Path) -> None:
    flight = flight_of(tmp_path, policy_for(LANDER), seed=1)
    moon = flight.scene.moon
    assert moon is not None
    assert (moon.terrain[0][0], moon.terrain[-1][0], len(moon.terrain)) == (0, 20, 11)
    assert moon.terrain[3][1] == pytest.approx(flight._lander.sky_polys[3][0][1], abs=1e-3)
    assert (moon.pad[:2], moon.size) == ((8, 12), (20, 13.333))
    assert flight._lander.render_mode is None
    assert flight._lander.particles == []


def test_the_stick_flies_instead_of_the_policy(tmp_path: Path) -> None:
    flight = flight_of(tmp_path, stubborn_policy(LANDER, 0), seed=1)
    assert flight.step().pilot == "policy"
    flight.take(2)
    frame = flight.step()
    assert (frame.pilot, frame.action) == ("you", 2)
    assert frame.shown["probabilities"][0] == 1, "what the policy would do is shown still"
    assert frame.lander is not None
    assert (frame.lander.main, frame.lander.side, frame.lander.fuel) == (1, 0, 0.3)
    flight.take(1)
    frame = flight.step()
    assert frame.lander is not None
    assert (frame.lander.main, frame.lander.side, frame.lander.fuel) == (0, -1, 0.33)
    flight.take(None)
    assert fly(flight)[-1].pilot == "policy"
    assert flight.landed().pilot == "both"


def test_the_left_engine_tilts_a_continuous_lander_as_it_does_a_discrete_one(tmp_path: Path) -> None:
    angles = []
    for env_id in (LANDER, "LunarLanderContinuous-v3"):
        flight = flight_of(tmp_path / env_id, policy_for(env_id), seed=1)
        flight.take(1)
        frame = [flight.step() for _ in range(20)][-1]
        assert frame.lander is not None
        angles.append(frame.lander.angle)
    assert angles[0] == angles[1] > 0.1


@pytest.mark.parametrize(
    ("action", "powers"),
    [((0, 0), (0, 0)), ((0.5, 0.6), (0.75, 0.6)), ((-1, -3), (0, -1)), ((9, 0.5), (1, 0)), (3, (0, 1)), (2, (1, 0))],
)
def test_engine_powers_by_hand(action: Any, powers: tuple[float, float]) -> None:
    assert engines(action) == pytest.approx(powers)


@pytest.mark.parametrize(("env_id", "stick"), [(LANDER, 4), (LANDER, -1), ("Pendulum-v1", 0)])
def test_no_such_choice_on_the_stick(env_id: str, stick: int, tmp_path: Path) -> None:
    flight = flight_of(tmp_path, policy_for(env_id))
    with pytest.raises(UserError, match=f"{env_id} takes .* not {stick}"):
        flight.take(stick)
    assert flight.step().pilot == "policy"


def test_a_newer_version_takes_over_in_flight(tmp_path: Path) -> None:
    policies = saved(tmp_path, {"one": stubborn_policy(LANDER, 0, version=1)})
    flight = Flight(policies, "one", seed=1)
    before = flight.step()
    stubborn_policy(LANDER, 2, version=2).save(tmp_path / "one")
    policies.refresh()
    after = flight.step()
    assert [(frame.version, frame.action, frame.t) for frame in (before, after)] == [(1, 0, 1), (2, 2, 2)]
    fly(flight)
    assert flight.landed().version == 2


def test_how_flights_end(tmp_path: Path) -> None:
    fallen = flight_of(tmp_path / "a", stubborn_policy(LANDER, 0), seed=0)
    fly(fallen)
    assert fallen.landed() == Landing(0, pytest.approx(-119.06), 52, "crashed", 0, "policy")
    gone = flight_of(tmp_path / "b", stubborn_policy(LANDER, 2), seed=0)
    fly(gone)
    assert gone.landed().outcome == "flew away"
    late = flight_of(tmp_path / "c", policy_for("Pendulum-v1"), seed=0)
    fly(late)
    assert (late.landed().outcome, late.landed().steps) == ("out of time", 200)
    fallen.begin(4)
    while not fallen.over:  # Gymnasium's own rules of thumb, on the stick
        fallen.take(int(heuristic(fallen._env, fallen._observation)))
        fallen.step()
    landed = fallen.landed()
    assert (landed.outcome, landed.pilot) == ("landed", "you")
    assert landed.total > 200


def test_an_environment_that_is_not_installed(tmp_path: Path) -> None:
    spec = dataclasses.replace(describe("CartPole-v1").policy_spec(), env_id="Nowhere-v0")
    with pytest.raises(UserError, match="unknown environment 'Nowhere-v0'"):
        flight_of(tmp_path, random_policy(spec))
    with pytest.raises(UserError, match="unknown policy 'two'"):
        Flight(saved(tmp_path, {"one": policy_for("CartPole-v1")}), "two")
