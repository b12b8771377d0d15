"""A run goes on where it stopped, as one that was never stopped; one that cannot go on is refused in one line."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors.episode import EpisodeBatch
from actors.errors import UserError
from actors.fleet import Landed
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.run_directory import RunDirectory
from learner.run.trainer import Trainer
from tests.learner.run.short_runs import Act, cartpole, check_consistent, equal_weights, kill_actor, kill_learner

pytestmark = pytest.mark.usefixtures("kept_processes")


def test_resume_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    config = cartpole(stop={"total_timesteps": 10_000})
    first = Trainer(config, tmp_path / "run").run()
    longer = overlay(config, {"stop": {"total_timesteps": 20_000}}, "test")
    second = Trainer(longer, tmp_path / "run", resume=True).run()
    rows = check_consistent(tmp_path / "run", second.counters)
    assert second.counters.total_timesteps >= 20_000 > first.counters.total_timesteps
    assert second.policy.spec.version == len(rows) > first.policy.spec.version
    assert second.counters.seconds > first.counters.seconds
    assert RunDirectory(tmp_path / "run").config() == longer, "the record tells what was done"


def test_a_run_says_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does nothing when it is to go on though it has ended, unless there is more to do."""
    config = cartpole(stop={"total_timesteps": 5_000, "target_return": 501.0, "window": 20})  # one more than there is
    result = Trainer(config, tmp_path / "run", callbacks=[Act(2, lambda trainer: trainer.stop("seen enough"))]).run()
    directory = RunDirectory(tmp_path / "run")
    record = directory.result()
    assert record
    assert (record["reason"], record["has_ended"], record["target_reached"]) == ("seen enough", False, False)
    result = Trainer(config, tmp_path / "run", resume=True).run()
    record = directory.result()
    assert record
    assert (record["reason"], record["has_ended"]) == ("budget used up", True)
    assert (record["target_return"], record["target_reached"]) == (501, False)
    counters = result.counters
    assert record["total_timesteps"] == counters.total_timesteps >= 5_000
    assert (record["episodes"], record["seconds"]) == (counters.episodes, counters.seconds)
    assert record["best_mean_return"] == counters.best_mean_return
    assert record["policy_version"] == result.policy.spec.version

    with monkeypatch.context() as patch:
        patch.setattr("learner.run.trainer.start_ray", lambda: pytest.fail("Ray was started"))
        again = Trainer(config, tmp_path / "run", resume=True)
        assert again.ended
        ended = again.run()
    assert (ended.reason, ended.missed) == ("budget used up", True)
    assert equal_weights(ended.policy, result.policy)
    assert directory.result() == record
    longer = overlay(config, {"stop": {"total_timesteps": 10_000}}, "test")
    assert Trainer(longer, tmp_path / "run", resume=True).ended is None


def test_a_run_of_another_environment_cannot_go_on(tmp_path: Path) -> None:
    RunDirectory(tmp_path).create(cartpole(), "ppo")
    with pytest.raises(UserError, match="is one of CartPole-v1: it cannot go on with Acrobot-v1"):
        Trainer(cartpole(env="Acrobot-v1"), tmp_path, resume=True)
    assert Trainer(cartpole(env="CartPole"), tmp_path, resume=True).config.env == "CartPole-v1"


class Record(Callback):
    """Keeps every batch that is learned from, in order."""

    def __init__(self) -> None:
        self.batches: list[EpisodeBatch] = []

    def on_start(self, trainer: Trainer) -> None:
        assert trainer.fleet is not None
        take = trainer.fleet.take

        def record(version: int) -> list[Landed]:
            landed = take(version)
            self.batches += ray.get([rollout.batch for rollout in landed])
            return landed

        trainer.fleet.take = record  # type: ignore[method-assign]


def starts(batches: list[EpisodeBatch]) -> set[tuple[float, ...]]:
    """First observations of all segments."""
    firsts = [np.append(0, np.cumsum(batch.segment_lengths)[:-1]) for batch in batches]
    return {tuple(row) for batch, first in zip(batches, firsts, strict=True) for row in batch.observations[first]}


WHOLE: dict[str, Any] = {
    "rollout": {"n_steps": None, "episodes_per_env": 1},
    "fleet": {"max_policy_lag": 0, "rollouts_per_update": 2, "actors": 2},
}


def test_whole_episodes_at_lag_0_resumed_are_those_of_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    """Nor does it show that a learner died, or an actor."""

    def config(updates: int) -> TrainConfig:
        stop = {"total_timesteps": None, "max_episodes": updates * 32}
        constant = {"schedule": "constant"}  # a linear one depends on the budget
        return cartpole(**WHOLE, stop=stop, update=constant, checkpoint={"checkpoint_seconds": 1000.0})

    unbroken = Trainer(config(6), tmp_path / "unbroken").run().policy
    Trainer(config(3), tmp_path / "resumed").run()
    assert equal_weights(unbroken, Trainer(config(6), tmp_path / "resumed", resume=True).run().policy)
    mishaps = [
        Act(2, lambda trainer: trainer.save()),
        Act(3, kill_actor),
        Act(4, kill_learner),
    ]
    unlucky = Trainer(config(6), tmp_path / "unlucky", callbacks=mishaps)
    assert equal_weights(unbroken, unlucky.run().policy)
    assert unlucky.learner_restarts == 1


class Rates(Callback):
    """Keeps the learning rate of every update."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.rates.append(metrics["train/learning_rate"])


def test_a_linear_schedule_never_jumps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It falls on from where it was, to 0 at the budget's end, however often that is moved."""

    def fly(name: str, updates: int, *callbacks: Callback) -> list[float]:
        rates, directory = Rates(), tmp_path / name
        stop = {"total_timesteps": None, "max_episodes": updates * 32}
        config = cartpole(**WHOLE, stop=stop, update={"learning_rate": 0.01, "n_epochs": 1})
        Trainer(config, directory, resume=directory.exists(), callbacks=[rates, *callbacks]).run()
        return [100 * rate for rate in rates.rates]

    halfway = Act(5, lambda trainer: trainer.stop("spot notice"))
    rates = fly("resumed", 10, halfway) + fly("resumed", 10)
    assert rates == [100 * (0.01 * (1 - i / 10)) for i in range(10)]
    assert "the budget has changed" not in caplog.text
    extended = fly("resumed", 20)  # the last update of the first ten had a tenth
    assert extended == pytest.approx([0.1 * (1 - i / 10) for i in range(10)])
    assert (
        "the budget has changed: the learning rate falls from 0.001, where it was, to 0 at the new end" in caplog.text
    )
    assert fly("resumed", 25) == pytest.approx([0.01 * (1 - i / 5) for i in range(5)])
    halfway = Act(5, lambda trainer: trainer.stop("spot notice"))
    fly("shortened", 10, halfway)
    assert fly("shortened", 8) == pytest.approx([0.6 * (1 - i / 3) for i in range(3)])


def test_a_linear_schedule_needs_a_budget(tmp_path: Path) -> None:
    config = cartpole(stop={"target_return": 450.0, "total_timesteps": None})
    with pytest.raises(UserError, match="schedule 'linear' falls to zero at the end of a budget, and target_return is"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("max_policy_lag", [0, 1])
@pytest.mark.parametrize("kind", ["fragments", "episodes"])
def test_a_resumed_run_sees_new_episodes(tmp_path: Path, kind: str, max_policy_lag: int) -> None:
    """As does one that is resumed again and again."""
    rollout = {"n_envs": 4} | ({"n_steps": 40} if kind == "fragments" else {"n_steps": None, "episodes_per_env": 1})
    config = cartpole(rollout=rollout, fleet={"max_policy_lag": max_policy_lag, "actors": 1})
    seen: set[tuple[float, ...]] = set()
    for life in range(3):
        record, stop = Record(), Act(3 * life + 3, lambda trainer: trainer.stop("spot notice"))
        Trainer(config, tmp_path / "run", resume=life > 0, callbacks=[record, stop]).run()
        flown = starts(record.batches)
        assert len(flown) == sum(batch.num_segments for batch in record.batches) >= 8
        assert not seen & flown
        seen |= flown


def test_resume_passes_over_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = cartpole(stop={"total_timesteps": 10_000}, checkpoint={"checkpoint_seconds": 0.0})
    Trainer(config, tmp_path / "run", callbacks=[Act(2, Trainer.save)]).run()
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "touchdown"):
        resumed = Trainer(overlay(config, {"stop": {"total_timesteps": 15_000}}, "test"), tmp_path / "run", resume=True)
    assert f"checkpoint {newest} is damaged" in caplog.text
    result = resumed.run()
    check_consistent(tmp_path / "run", result.counters)


@pytest.mark.parametrize("record", ["", "[]", "{}"])
def test_resume_does_without_what_the_run_came_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, record: str
) -> None:
    config = cartpole(stop={"total_timesteps": 2_000})
    first = Trainer(config, tmp_path / "run").run()
    (tmp_path / "run" / "result.json").write_text(record)
    with caplog.at_level(logging.WARNING, "touchdown"):
        again = Trainer(config, tmp_path / "run", resume=True)
    assert ("what the run came to is not known" in caplog.text) == (record != "{}")
    assert again.ended is None
    assert again.run().counters.total_timesteps == first.counters.total_timesteps
    assert RunDirectory(tmp_path / "run").result()


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").create(cartpole(), None)
    with pytest.raises(UserError, match="already holds a run: go on with --resume"):
        Trainer(cartpole(), tmp_path / "run")


def test_sigterm_ends_a_run_after_its_update(tmp_path: Path) -> None:
    stopping = Act(2, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    result = Trainer(cartpole(), tmp_path / "run", callbacks=[stopping]).run()
    assert result.reason == "SIGTERM received"
    resumed = Trainer(cartpole(), tmp_path / "run", resume=True)
    assert resumed.counters.total_timesteps == result.counters.total_timesteps


def test_a_run_of_other_networks_cannot_go_on(tmp_path: Path) -> None:
    config = cartpole(stop={"total_timesteps": 1_000})
    Trainer(config, tmp_path / "run").run()
    wider = overlay(config, {"network": {"hidden_sizes": [128]}, "stop": {"total_timesteps": 9_000}}, "test")
    with pytest.raises(UserError, match=r"goes on with its own NetworkConfig\(network='auto', hidden_sizes=\(64"):
        Trainer(wider, tmp_path / "run", resume=True)
    assert RunDirectory(tmp_path / "run").config() == config
