"""The parts of a night of faults that need no machines: what strikes, what is checked, and the page."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.policy import Policy
from learner.keeping.storage import Disk
from serve.answers import Action
from tests.actors.examples import policy_for
from tests.cluster.soak import footprint
from tests.cluster.soak.answers import Answer, Answers
from tests.cluster.soak.clock import can_step, clock_variables, step
from tests.cluster.soak.faults import FAULTS
from tests.cluster.soak.load import Request
from tests.cluster.soak.log_reader import LogReader
from tests.cluster.soak.night import Event, Night
from tests.cluster.soak.page import page
from tests.cluster.soak.recovery import lacking
from tests.cluster.soak.rows import complaints, longest_pause, went_back
from tests.cluster.soak.schedule import schedule

BATCH = 256


def rows_of(count: int, **changed: float) -> list[dict[str, Any]]:
    """A log of that many updates; ``changed`` in the last row."""
    rows = [
        {
            "train/n_updates": number,
            "time/total_timesteps": 250 * number,
            "time/time_elapsed": 0.5 * number,
            "time/episodes": number,
            "rollout/actors": 2,
        }
        for number in range(1, count + 1)
    ]
    rows[-1] |= {f"{'train' if name == 'n_updates' else 'time'}/{name}": value for name, value in changed.items()}
    return rows


def test_each_fault_strikes_before_any_strikes_again_and_a_seed_says_all() -> None:
    strikes = list(itertools.islice(schedule(list(FAULTS), 3), 40))
    struck = [fault for strike in strikes for fault in strike.faults]
    assert set(struck[: len(FAULTS)]) == set(FAULTS)
    assert all(len(set(strike.faults)) == len(strike.faults) for strike in strikes)
    assert {len(strike.faults) for strike in strikes} == {1, 2}
    assert strikes == list(itertools.islice(schedule(list(FAULTS), 3), 40))
    assert strikes != list(itertools.islice(schedule(list(FAULTS), 4), 40))


def test_one_fault_alone_can_strike_again_and_again() -> None:
    assert {it.faults for it in itertools.islice(schedule(["actor killed"], 0), 9)} == {("actor killed",)}


def test_a_log_without_fault() -> None:
    assert complaints(rows_of(9), BATCH) == []
    assert complaints([], BATCH) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_updates": 8}, "row 9 is of update 8"),
        ({"total_timesteps": 2_000 + 512}, "update 9 counts 512 steps"),
        ({"total_timesteps": 2_000}, "update 9 counts 0 steps"),
        ({"time_elapsed": 3.0}, "time/time_elapsed falls at update 9"),
        ({"episodes": 2}, "time/episodes falls at update 9"),
    ],
)
def test_what_is_lost_or_counted_twice_is_seen(changed: dict[str, float], said: str) -> None:
    assert any(said in it for it in complaints(rows_of(9, **changed), BATCH))


def test_how_far_a_log_went_back() -> None:
    assert went_back(rows_of(8), rows_of(9)) == 0
    assert went_back(rows_of(9), rows_of(5)) == 2.0
    assert went_back(rows_of(9), rows_of(9, episodes=99)) == 0.5
    assert went_back(rows_of(3), []) == 1.5
    assert went_back([], rows_of(3)) == 0


def test_the_longest_pause() -> None:
    rows = rows_of(9, time_elapsed=20.0)
    assert longest_pause(rows, 3) == 16.0
    assert longest_pause(rows[:-1], 3) == 0.5
    assert longest_pause([], 0) == 0


def test_what_is_not_well_yet() -> None:
    def at(version: int) -> list[Request]:
        return [Request(0.0, 0.01, version)] * 10

    assert lacking(rows_of(9), at(7), 4, 6, 2) == ""
    assert lacking(rows_of(8), at(7), 4, 6, 2) == "the run is at update 8, and was at 4"
    assert lacking(rows_of(9), at(7), 4, 6, 3) == "2 actors fly of 3"
    assert lacking(rows_of(9), at(6), 4, 6, 2) == "version 6 is served, as then"
    assert lacking(rows_of(9), [*at(7), Request(0.0, 9.0, -1)], 4, 6, 2) == "requests fail"
    assert lacking(rows_of(9), [], 4, -1, 2) == "requests fail"


def answer_of(policy: Policy, observations: Any, version: int) -> Answer:
    step = policy.step(observations, policy.start(len(observations)))
    logits = policy.forward(observations)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Answer(0.0, observations, Action(step.actions, probabilities, None, None, None, "run", version))


def test_answers_are_judged_by_the_policy_of_their_version() -> None:
    policy = policy_for("CartPole-v1")
    observations = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    answers = Answers()
    right = answer_of(policy, observations, policy.spec.version)
    answers.judge(right)
    assert len(answers.unknown) == 1
    answers.know(policy)
    answers.judge_unknown()
    assert (answers.right, answers.wrong, answers.unknown) == (1, [], [])
    assert right.action.probabilities is not None
    flipped = right.action._replace(probabilities=right.action.probabilities[:, ::-1])
    answers.judge(Answer(0.0, observations, flipped))
    worst = right.action._replace(action=1 - right.action.action)
    answers.judge(Answer(0.0, observations, worst))
    assert len(answers.wrong) == 2


def test_what_grows_is_seen_and_what_settles_is_not() -> None:
    def life(role: str, megabytes: list[float], files: int = 9) -> list[footprint.Sample]:
        return [
            footprint.Sample(10.0 * i, role, f"m {role} 1", 61 + 10.0 * i, int(1e6 * it), files + i * (role == "leaky"))
            for i, it in enumerate(megabytes)
        ]

    flat, grows = [100.0 + i % 3 for i in range(90)], [100.0 + 2 * i for i in range(90)]
    said = footprint.complaints(
        [*life("flat", flat), *life("grows", grows), *life("leaky", flat), *life("new", [1, 900])]
    )
    assert [it.split(" (")[0] for it in said] == ["grows", "leaky"]
    young = [footprint.Sample(it.at, it.role, it.process, 5.0, it.memory, it.files) for it in life("grows", grows)]
    assert footprint.complaints(young) == []


def test_a_log_in_parts_is_read_as_it_grows_and_is_cut(tmp_path: Path) -> None:
    storage = Disk(tmp_path)
    reader = LogReader(storage)
    assert reader.rows() == []
    for number in range(4):
        name = f"metrics.jsonl.{number:04d}" if number else "metrics.jsonl"
        storage.write(name, b'{"train/n_updates": %d}\n{"eval/episodes": 9}\n' % number)
        assert [row["train/n_updates"] for row in reader.rows()] == list(range(number + 1))
    storage.remove("metrics.jsonl.0003")
    storage.write("metrics.jsonl.0002", b'{"train/n_updates": 7}\n')
    assert [row["train/n_updates"] for row in reader.rows()] == [0, 1, 7]


def test_the_page_shows_strikes_complaints_and_curves() -> None:
    night = Night(seed=7, minutes=2)
    night.events = [
        Event(("storage cut",), 10, 1, "the <bucket>", 30, 42, 12, 150),
        Event(("actor killed", "head lost, Redis stays"), 60, 2, "both", 70, None, 90, 90, "1 actors fly of 2"),
    ]
    night.complaints = [(160.0, "a & b")]
    night.updates = [(float(i), i, 2) for i in range(0, 120, 3)]
    night.samples = [footprint.Sample(float(i), "actor", "a", 9.0, 10**8, 5) for i in range(0, 120, 10)]
    night.figures = {"requests": 1234, "longest request, s": 1.5}
    text = page(night)
    for expected in ("seed 7", "2 strikes", "1 answered", "a &amp; b", "1,234", "never: 1 actors", "&lt;bucket&gt;"):
        assert expected in text
    assert text.count("<svg") == 7
    assert "http" not in text, "it needs no other file"


def test_the_page_of_a_night_that_never_began() -> None:
    assert "0 strikes" in page(Night(seed=0, minutes=1))


@pytest.mark.skipif(not can_step(), reason="needs a C compiler")
def test_a_clock_is_stepped_and_a_second_stays_one(tmp_path: Path) -> None:
    code = "import time, sys; before = time.time(); print(flush=True); input(); a = time.monotonic(); time.sleep(0.1)"
    code += "; print(time.time() - before > 3000, 0.1 <= time.monotonic() - a < 60)"
    variables = {"PATH": "/usr/bin:/bin", **clock_variables(tmp_path / "clock")}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=variables, **pipes) as process:
        process.stdout.readline()
        step(tmp_path / "clock", 3600)
        said, _ = process.communicate("\n", timeout=60)
    assert said == "True True\n"
