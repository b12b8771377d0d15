"""What a person flies becomes episodes of a dataset: the same as a rollout would have made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from actors.errors import UserError
from actors.rollout import Rollout
from actors.vectors import GymnasiumEnvironments
from learner.dataset.dataset import open_dataset
from serve.watch.flight import Flight
from serve.watch.recording import SOURCE, Recorder
from tests.actors.examples import assert_same_batches, policy_for, stubborn_policy
from tests.serve.watching import flown_by_hand, saved

MODULES = ["tests.actors.fake_environments"]


def test_a_persons_flights_are_a_dataset(tmp_path: Path) -> None:
    dataset = open_dataset(flown_by_hand(tmp_path, episodes=3))
    assert dataset.env_id == "CartPole-v1"
    assert dataset.sources == [SOURCE]
    assert dataset.returns.tolist() == dataset.lengths.tolist()
    assert dataset.lengths.min() > 50
    first = dataset.part(0)
    expected = (first.observations[:, 2] + first.observations[:, 3] > 0).astype(int)
    assert first.actions.tolist() == expected.tolist()


FRAMES = "tests.actors.fake_environments:Painted-v0 | FrameStackObservation(stack_size=3)"


@pytest.mark.parametrize("env_id", ["LunarLander-v3", FRAMES])
def test_it_is_what_a_rollout_would_have_made_of_it(env_id: str, tmp_path: Path) -> None:
    policy = stubborn_policy(env_id, 1)
    flight = Flight(saved(tmp_path, {"one": policy}, MODULES), "one", seed=3, recorded=True)
    flight.take(1)
    while not flight.over:
        flight.step()
    found = flight.flown_by_hand()
    assert found
    environments = GymnasiumEnvironments(env_id, 1, seed=0)
    environments._seeds = [3]
    rolled_out = Rollout(environments, seed=0).episodes(policy, 1)
    assert_same_batches(found, dataclasses.replace(rolled_out, notes={}))


def test_continuous_actions_are_as_the_environment_takes_them(tmp_path: Path) -> None:
    directory = flown_by_hand(tmp_path, "LunarLanderContinuous-v3", 2, hand=lambda _: 2)
    dataset = open_dataset(directory)
    assert np.unique(dataset.part(1).actions, axis=0).tolist() == [[1, 0]]


def test_what_the_policy_flew_a_step_of_is_nobodys(tmp_path: Path) -> None:
    flight = Flight(saved(tmp_path, {"one": policy_for("CartPole-v1")}), "one", seed=0, recorded=True)
    for helped in (0, 3, None):
        flight.begin(0)
        while not flight.over:
            flight.take(None if flight.t == helped else 1)
            flight.step()
        assert (flight.flown_by_hand() is None) == (helped is not None)


def test_several_environments_are_refused(tmp_path: Path) -> None:
    cart, lander = policy_for("CartPole-v1"), policy_for("LunarLander-v3")
    Recorder(str(tmp_path / "mine"), saved(tmp_path, {"cart": cart, "other": cart}))
    said = "--record keeps flights of one environment, not of CartPole-v1 and LunarLander-v3: serve one of them"
    with pytest.raises(UserError, match=said):
        Recorder(str(tmp_path / "both"), saved(tmp_path, {"cart": cart, "lander": lander}))
    with pytest.raises(UserError, match="holds episodes of CartPole-v1, not of LunarLander-v3"):
        Recorder(str(tmp_path / "mine"), saved(tmp_path, {"lander": lander}))
