"""Recordings: whole episodes, as many of each policy, the same ones for the same command."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from actors.errors import EnvironmentFault, UserError
from actors.evaluation import fly_episodes
from actors.parts import Parts
from actors.policy import Policy
from actors.spaces import Box, Discrete
from learner.dataset.card import card, histogram
from learner.dataset.dataset import open_dataset
from learner.dataset.form import Form
from learner.dataset.recording import Pilot, planned, record
from learner.keeping.policies import find_version
from learner.record import RecordCommand, main
from tests.actors.examples import assert_same_batches, policy_for, stubborn_policy
from tests.actors.fake_environments import RAISE
from tests.learner.dataset.recordings import FORMS, LANDER

FAKE = "tests.actors.fake_environments"
LIMIT = 1000


@pytest.mark.parametrize("episodes", [1, 3, 27, 64, 65, 100, 667, 2000])
@pytest.mark.parametrize("policies", [1, 3])
@pytest.mark.parametrize("form", [LANDER, Form("some:Pixels-v0", Parts({"eye": Box((40, 40))}), Discrete(2))])
def test_flights_share_the_episodes_evenly(episodes: int, policies: int, form: Form) -> None:
    flights = planned(episodes, form, policies)
    of_each = [sum(flight.episodes for flight in flights if flight.policy == i) for i in range(policies)]
    assert sum(of_each) == episodes
    assert max(of_each) - min(of_each) <= 1
    slots, each = (64, 4) if form is LANDER else (8, 1)
    assert all(0 < flight.slots <= slots and 0 < flight.episodes_per_slot <= each for flight in flights)


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run directory with a policy, two kept versions and a best one, each of which does one thing."""
    for place, action, version in (("policy", 0, 9), ("versions/3", 1, 3), ("versions/12", 1, 12), ("best", 1, 5)):
        stubborn_policy("CartPole-v1", action, version).save(tmp_path / "run" / place)
    return str(tmp_path / "run")


def test_versions_of_a_run(run: str, tmp_path: Path) -> None:
    versions = [find_version(name).spec.version for name in (run, f"{run}@3", f"{run}@12", f"{run}@best")]
    assert versions == [9, 3, 12, 5]
    with pytest.raises(UserError, match=rf"^{run} has no version 4; those there are: 3, 12$"):
        find_version(f"{run}@4")
    policy_for("CartPole-v1").save(tmp_path / "bare")
    with pytest.raises(UserError, match=r"bare has no version 4; it has kept none; see --keep-every$"):
        find_version(f"{tmp_path}/bare@4")
    with pytest.raises(UserError, match="bare has kept no best policy"):
        find_version(f"{tmp_path}/bare@best")
    for number in range(40):
        policy_for("CartPole-v1").save(tmp_path / "long" / "versions" / str(number))
    with pytest.raises(UserError, match=r"those there are: 0, 1, 2, 3, 4, 5, …, 34, 35, 36, 37, 38, 39$"):
        find_version(f"{tmp_path}/long@40")


@pytest.mark.usefixtures("ray_cluster")
def test_a_recording(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [tmp_path / "first", tmp_path / "again", tmp_path / "other"]
    for place, seed in zip(places, (0, 0, 1), strict=True):
        main([run, f"{run}@best", "--episodes", "31", "--epsilon", "0.2", "--to", str(place), "--seed", str(seed)])
    first, again, other = map(open_dataset, places)
    assert first.num_episodes == again.num_episodes == other.num_episodes == 31
    for name in first.parts:
        assert (places[0] / "parts" / name).read_bytes() == (places[1] / "parts" / name).read_bytes()
    assert sorted(first.returns) != sorted(other.returns)
    common = {"preset": None, "epsilon": 0.2, "deterministic": False}
    assert first.sources == [{"policy": "run", "version": 9, **common}, {"policy": "run@best", "version": 5, **common}]
    assert np.bincount(first.source).tolist() == [16, 15]
    for episode in range(31):
        part, start, length = first.part(first.in_part[episode]), first.start[episode], first.lengths[episode]
        assert part.rewards[start : start + length].sum() == first.returns[episode]
        wanted = [0, 1][first.source[episode]]
        share = (part.actions[start : start + length] == wanted).mean()
        assert share > 0.5
    text = (places[0] / "README.md").read_text()
    assert "31 whole episodes" in text
    assert "run@best, version 5, ε 0.2" in text
    assert re.search(r"first: 31 episodes, [\d,]+ steps; returns ", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main([run, "--episodes", "1", "--to", str(places[0])])
    assert "has episodes of seed 0 already: give another --seed, or another directory" in capsys.readouterr().err
    main([run, "--episodes", "3", "--to", str(places[0]), "--seed", "2", "--deterministic"])
    assert open_dataset(places[0]).num_episodes == 34


@pytest.mark.usefixtures("ray_cluster")
def test_recorded_episodes_are_no_shorter_than_others(tmp_path: Path) -> None:
    policy = policy_for("CartPole-v1", seed=3)
    record([Pilot(policy, "some")], 600, str(tmp_path), 0, LIMIT, lambda *_: None)
    lengths = open_dataset(tmp_path).lengths
    _, expected, _ = fly_episodes(policy, range(600), deterministic=False)
    error = np.hypot(lengths.std(), expected.std()) / np.sqrt(600)
    assert lengths.mean() == pytest.approx(expected.mean(), abs=4 * error)


@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    cartpole, broken = policy_for("CartPole-v1"), stubborn_policy(f"{FAKE}:Obedient-v0", RAISE)
    nobody = lambda *_: None  # noqa: E731
    with pytest.raises(UserError, match="a flies CartPole-v1, and b Acrobot-v1: one at a time"):
        record([Pilot(cartpole, "a"), Pilot(policy_for("Acrobot-v1"), "b")], 4, str(tmp_path / "a"), 0, LIMIT, nobody)
    assert not (tmp_path / "a").exists()
    with pytest.raises(EnvironmentFault, match="the lander is on fire"):
        record([Pilot(broken, "a")], 3, str(tmp_path / "b"), 0, LIMIT, nobody)
    record([Pilot(cartpole, "a")], 3, str(tmp_path / "c"), 0, LIMIT, nobody)
    with pytest.raises(UserError, match="holds episodes of CartPole-v1, not of "):
        record([Pilot(broken, "a")], 3, str(tmp_path / "c"), 1, LIMIT, nobody)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policies": ()}, "which policies"),
        ({"episodes": 1, "policies": ("a", "b")}, "episodes must be one or more for each of 2 policies: 1"),
        ({"seed": -1}, "seed must be zero or more"),
        ({"max_episode_steps": 0}, "max_episode_steps must be 1 or more, not 0"),
    ],
)
def test_impossible_commands_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RecordCommand(**{"policies": ("a",), "to": "b", **fields})  # type: ignore[arg-type]


def test_mistakes_are_one_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = policy_for("CartPole-v1")
    foreign = Policy(dataclasses.replace(policy.spec, env_id="antigravity:CartPole-v1"), policy.weights)
    foreign.save(tmp_path / "foreign")
    for words, message in (
        ([f"{run}@7"], "has no version 7; those there are: 3, 12"),
        ([run, "--epsilon", "2"], "epsilon must lie between 0 and 1, not 2"),
        ([str(tmp_path / "foreign")], "add --module antigravity if you trust it"),
        ([run, "--epsilonn", "2"], "did you mean --epsilon"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*words, "--to", str(tmp_path / "data")])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "data").exists()


def test_the_card_says_who_flew(tmp_path: Path) -> None:
    from tests.learner.dataset.recordings import episodes, write

    write(tmp_path, FORMS["pictures"], episodes(FORMS["pictures"], [3, 4]), policy="a|b<c", version=4, preset="ppo")
    write(tmp_path, FORMS["pictures"], episodes(FORMS["pictures"], [5]), writer="page", person=True)
    write(tmp_path, FORMS["pictures"], episodes(FORMS["pictures"], [6]), writer="theirs", policy="x", epsilon="some")
    dataset = open_dataset(tmp_path)
    text = card(dataset)
    assert r"| a\|b&lt;c, version 4, ppo | 2 | 7 |" in text
    assert "| a person | 1 | 5 |" in text
    assert "| x, ε some | 1 | 6 |" in text  # whatever others wrote there
    assert "Steps of an episode: 3 to 6" in text
    assert len(histogram(dataset).splitlines()) == 12
    again = open_dataset(tmp_path)
    assert_same_batches(again.part(0), dataset.part(0))
