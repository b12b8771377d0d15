"""Actors and learners that are killed or fail are replaced, and no update is lost or made twice."""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.episode import Array
from actors.errors import UserError
from actors.fleet import Fleet, Landed
from learner.run.callback import Callback
from learner.run.learner_group import LearnerGroup, LearnerLostError
from learner.run.trainer import Trainer
from tests.learner.run.short_runs import (
    FOR_EVER,
    Act,
    cartpole,
    check_consistent,
    flying_actors,
    kill_actor,
    kill_learner,
    killed,
)

pytestmark = pytest.mark.usefixtures("kept_processes")


def test_a_killed_actor_is_replaced(tmp_path: Path) -> None:
    class Kill(Callback):
        flown = 0

        def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            assert trainer.fleet is not None
            if metrics["train/n_updates"] == 3:
                kill_actor(trainer)
            if trainer.fleet.restarts and trainer.fleet.size == 2:
                self.flown = self.flown or trainer.counters.total_timesteps
                if trainer.counters.total_timesteps >= self.flown + 10_000:
                    trainer.stop("it flies")

    trainer = Trainer(cartpole(fleet={"actors": 2}, stop=FOR_EVER), tmp_path / "run", callbacks=[Kill()])
    result = trainer.run()
    assert result.reason == "it flies"
    assert trainer.fleet is not None
    assert trainer.fleet.restarts == 1
    check_consistent(tmp_path / "run", result.counters)


def test_actors_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run reaches its target; what was in the air is flown again; no update is lost."""

    class KillActors(Callback):
        version = 0

        def __init__(self) -> None:
            self.killed = set[Any]()

        def on_wait(self, trainer: Trainer) -> None:
            flying = flying_actors(trainer)  # one that is dead may be among them, not missed yet
            living = [actor for actor in flying if actor._actor_id not in self.killed]
            if len(self.killed) < 8 and len(flying) == 2 and living and trainer.version > self.version:
                victim = living[len(self.killed) % len(living)]
                assert killed(victim)
                self.killed.add(victim._actor_id)
                self.version = trainer.version

        def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            if metrics["rollout/actor_restarts"] >= 8 and trainer.counters.best_mean_return >= 450:
                trainer.stop("target reached all the same")

    # On a busy machine any actor can be a straggler, whose rollout is not waited for.
    monkeypatch.setattr("actors.fleet._STRAGGLER", math.inf)
    config = cartpole(fleet={"actors": 2}, stop=FOR_EVER)
    result = Trainer(config, tmp_path / "run", callbacks=[KillActors()]).run()
    assert result.reason == "target reached all the same"
    rows = check_consistent(tmp_path / "run", result.counters)
    assert rows[-1]["rollout/actor_restarts"] == 8
    assert rows[-1]["rollout/dropped"] == 0
    assert rows[-1]["rollout/learner_restarts"] == 0


def test_a_killed_learner_comes_back_from_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killing = Act(8, kill_learner)
    config = cartpole(stop={"total_timesteps": 20_000}, checkpoint={"checkpoint_seconds": 0.2})
    with caplog.at_level(logging.WARNING, "touchdown"):
        result = Trainer(config, tmp_path / "run", callbacks=[killing]).run()
    assert "the learner died; going on from the checkpoint" in caplog.text
    rows = check_consistent(tmp_path / "run", result.counters)
    assert result.policy.spec.version == rows[-1]["train/n_updates"]
    assert result.counters.total_timesteps >= 20_000


def test_a_restart_that_is_lost_before_it_runs_is_one_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts it on a node that is gone, while it has not noticed yet."""
    start, starts = LearnerGroup.start, []

    def lose_the_second(group: LearnerGroup, state: dict[str, Array] | None) -> Any:
        config = group._placement
        if len(starts) == 1:  # it must not run before it is killed
            group._placement = dataclasses.replace(config, learner_labels={"role": "moon"})
        policy = start(group, state)
        group._placement = config
        starts.append(policy)
        if len(starts) == 2:
            ray.kill(group._learners[0])
        return policy

    monkeypatch.setattr(LearnerGroup, "start", lose_the_second)
    trainer = Trainer(cartpole(stop={"total_timesteps": 20_000}), tmp_path, callbacks=[Act(3, kill_learner)])
    assert trainer.run().reason == "budget used up"
    assert len(starts) == 3
    assert check_consistent(tmp_path, trainer.counters)[-1]["rollout/learner_restarts"] == 1


class KillLearner(Callback):
    """Kills the learner so many times: as it starts, and then at random moments after it has learned something.

    The run ends some updates after the last time.
    """

    def __init__(self, times: int) -> None:
        self._rng = random.Random(0)
        self._left, self._next, self._last = times, math.inf, 0

    def on_start(self, trainer: Trainer) -> None:
        self._kill(trainer)

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self._next == math.inf:
            self._next = time.monotonic() + self._rng.uniform(0, 0.5)
        if not self._left and trainer.version >= self._last + 20:
            trainer.stop("killed often enough")

    def on_wait(self, trainer: Trainer) -> None:
        if self._left and time.monotonic() > self._next:
            self._kill(trainer)

    def _kill(self, trainer: Trainer) -> None:
        self._left -= killed(trainer.learners._learners[0])
        self._next, self._last = math.inf, trainer.version


def test_a_learner_killed_at_random_moments(tmp_path: Path) -> None:
    config = cartpole(checkpoint={"checkpoint_seconds": 0.0}, stop=FOR_EVER, update={"n_epochs": 1})
    result = Trainer(config, tmp_path, callbacks=[KillLearner(4)]).run()
    assert result.reason == "killed often enough"
    rows = check_consistent(tmp_path, result.counters)
    assert rows[-1]["train/n_updates"] == result.policy.spec.version


def test_a_learner_that_dies_with_the_run_comes_back_to_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last update is done, and the learner is gone before its checkpoint is written."""
    loop = Trainer._loop
    killed = []

    def dying(trainer: Trainer) -> str:
        reason = loop(trainer)
        if not killed:
            killed.append(trainer.version)
            kill_learner(trainer)
        return reason

    monkeypatch.setattr(Trainer, "_loop", dying)
    config = cartpole(checkpoint={"checkpoint_seconds": 1000.0}, stop={"total_timesteps": 8000})
    trainer = Trainer(config, tmp_path)
    result = trainer.run()
    assert trainer.learner_restarts == 1
    assert result.reason == "budget used up"
    check_consistent(tmp_path, result.counters)


def test_a_learner_that_always_dies_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = LearnerGroup.update

    def dying(group: LearnerGroup, *arguments: Any) -> Any:
        killed(group._learners[0])
        return update(group, *arguments)

    class Kill(Callback):
        def on_wait(self, trainer: Trainer) -> None:
            killed(trainer.learners._learners[0])

    monkeypatch.setattr("learner.run.trainer._MAX_LEARNER_DEATHS", 3)
    monkeypatch.setattr(LearnerGroup, "update", dying)  # else it could be done with one before it is killed
    trainer = Trainer(cartpole(), tmp_path, callbacks=[Kill()])
    with pytest.raises(LearnerLostError, match="the learner died 3 times without an update"):
        trainer.run()
    assert trainer.fleet is not None
    assert trainer.fleet.restarts == 0, "no actor died of it"


ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(
    ("learners", "error", "words", "failures"),
    [
        (1, "AcceleratorError", ILLEGAL, 1),
        (2, "OutOfMemoryError", NO_MEMORY, 1),
        (1, "OutOfMemoryError", NO_MEMORY, 2),
    ],
)
def test_a_device_that_fails_costs_the_time_since_the_checkpoint_and_memory_twice_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, learners: int, error: str, words: str, failures: int
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    failing = {"error": error, "words": words, "failures": failures, "marks": str(marks)}
    config = cartpole(
        algorithm={"name": "tests.learner.learners:OnAFailingDevice", **failing},
        placement={"learners": learners, "device": "cpu"},
        stop={"total_timesteps": 6_000},
    )
    trainer = Trainer(config, tmp_path / "run")
    if failures == 1:
        check_consistent(tmp_path / "run", trainer.run().counters)
    else:
        with pytest.raises(UserError, match=f"the learner cannot go on: {NO_MEMORY}; lower --batch-size, "):
            trainer.run()
    assert trainer.learner_restarts == 1
    assert f"it died of this: {words.splitlines()[0]}" in caplog.text


def test_a_learner_that_dies_between_updates_is_missed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no update needs it: the rollouts for the next one take long."""
    take = Fleet.take
    killed = []

    def take_nothing_from_a_dead_learner(fleet: Fleet, version: int) -> list[Landed]:
        return take(fleet, version) if not killed or trainer.learner_restarts else []

    class Kill(Callback):
        def on_wait(self, trainer: Trainer) -> None:
            if not killed and trainer.version >= 3 and trainer._update is None:
                killed.append(trainer.version)
                kill_learner(trainer)

    monkeypatch.setattr(Fleet, "take", take_nothing_from_a_dead_learner)
    config = cartpole(stop={"total_timesteps": 20_000, "max_seconds": 600})
    trainer = Trainer(config, tmp_path, callbacks=[Kill()])
    assert trainer.run().reason == "budget used up"
    assert trainer.learner_restarts == 1
    assert trainer.counters.total_timesteps >= 20_000
    assert trainer.fleet is not None
    assert trainer.fleet.restarts == 0
