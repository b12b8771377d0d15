"""Learning from a replay memory on real Ray processes: actor, learner and driver are killed while it is full."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from learner.keeping.checkpoint import load_checkpoint
from learner.keeping.metrics_log import read_metrics
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from learner.run.trainer import Trainer
from tests.learner.driver import FOR_EVER, Driver
from tests.learner.run.short_runs import check_consistent, kill_actor, kill_learner
from tests.learner.run.test_faults import check_goes_on, newest_checkpoint, start

__all__ = ["start"]  # a fixture
pytestmark = pytest.mark.usefixtures("kept_processes")

FULL = 1_000
RATIO = 1 / 16
STARTS = 500
Rows = list[dict[str, Any]]


def dqn_on_cartpole(**changes: dict[str, Any]) -> TrainConfig:
    """A small memory, soon full."""
    settings: dict[str, Any] = {
        "env": "CartPole-v1",
        "rollout": {"n_envs": 8, "n_steps": 16},
        "algorithm": {"buffer_size": FULL, "learning_starts": STARTS, "replay_ratio": RATIO, "batch_size": 64},
        "fleet": {"cpus_per_actor": 0.0},
        "stop": {"total_timesteps": 10**9},
        "evaluation": {"eval_every": None},
        "checkpoint": {"checkpoint_seconds": 0.1},
    }
    return overlay(overlay(preset("dqn"), settings, "test"), changes, "test")


class OnceFull(Callback):
    """Does something once the memory is full, and ends the run when it is so again, so many updates later."""

    def __init__(self, action: Any, again: int = 20) -> None:
        self._action, self._again, self._since = action, again, 0

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if metrics["train/memory_size"] < FULL:
            return
        if not self._since and trainer.recorder.last is not None and trainer.recorder.last.counters["episodes"]:
            self._action(trainer)
        elif not self._since:
            return
        self._since += 1
        if self._since > self._again:
            trainer.stop("it is full again")


def learned_as_told(rows: Rows, owed: float = 0.0) -> None:
    """Gradient steps are the ratio of what came in once enough was held, however that was divided into updates."""
    steps = [0, *(row["time/total_timesteps"] for row in rows)]
    total = 0.0
    for (before, after), row in zip(itertools.pairwise(steps), rows, strict=True):
        if row["train/memory_size"] >= STARTS:
            owed += RATIO * (after - before)
        total += row["train/gradient_steps"]
        assert owed - 1 < total + 1e-6
        assert total < owed + 1e-6


def test_an_actor_is_killed(tmp_path: Path) -> None:
    """The learner learns as much of each step as before, and counts each once."""
    config = dqn_on_cartpole(fleet={"actors": 2})
    result = Trainer(config, tmp_path / "run", callbacks=[OnceFull(kill_actor)]).run()
    rows = check_consistent(tmp_path / "run", result.counters)
    assert result.reason == "it is full again"
    first = next(i for i, row in enumerate(rows) if row["train/memory_size"] >= STARTS)
    assert all(row["train/gradient_steps"] == 0 for row in rows[:first])
    # What came in with the batch that made it enough counts whole.
    learned_as_told(rows)
    assert rows[-1]["train/samples_per_insert"] == pytest.approx(64 * RATIO, rel=0.4)


@pytest.mark.parametrize("keeps", [True, False])
def test_the_learner_is_killed(tmp_path: Path, keeps: bool) -> None:
    """It comes back with its memory from the checkpoint, or fills it anew before it learns."""
    config = dqn_on_cartpole(checkpoint={"checkpoint_memory": keeps})
    seen: Rows = []

    class See(Callback):
        def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            seen.append(metrics)

    result = Trainer(config, tmp_path / "run", callbacks=[OnceFull(kill_learner), See()]).run()
    assert result.reason == "it is full again"
    rows = check_consistent(tmp_path / "run", result.counters)
    assert rows[-1]["rollout/learner_restarts"] == 1
    back = [row for row in seen if row["rollout/learner_restarts"] == 1]
    if keeps:
        assert back[0]["train/memory_size"] > STARTS
        assert back[0]["train/gradient_steps"] > 0
    else:
        assert back[0]["train/memory_size"] <= 8 * 16
        empty = [row for row in back if row["train/memory_size"] < STARTS]
        assert [row["train/gradient_steps"] for row in empty] == [0] * len(empty)
    assert back[-1]["train/gradient_steps"] > 0
    state, _ = load_checkpoint(RunDirectory(tmp_path / "run").checkpoints)
    assert any(name.startswith("memory.") for name in state) == keeps
    assert state["network.target.trunk.0.weight"].shape == (64, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="as the tests of faults")
def test_the_driver_is_killed(start: Any, tmp_path: Path) -> None:
    """What it left can be gone on from, the memory with it."""
    options = [*FOR_EVER, "--preset", "dqn", "--buffer-size", "2000", "--learning-starts", "500", "--checkpoint-memory"]
    options += ["--actor-labels", "role", "head", "--learner-labels", "role", "head", "--go-on"]
    driver: Driver = start(tmp_path / "run", *options)
    driver.wait(lambda rows: bool(rows) and rows[-1]["train/memory_size"] == 2_000)
    full = newest_checkpoint(tmp_path / "run")
    driver.wait(lambda _: newest_checkpoint(tmp_path / "run") > full)
    driver.kill()
    steps = check_goes_on(tmp_path / "run")
    assert steps > 500
    before = len(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    again: Driver = start(tmp_path / "run", *options)
    again.wait(lambda rows: len(rows) > before)
    again.wait_for_updates(3)
    said = again.finish()
    rows = again.rows()
    assert rows[before]["train/memory_size"] > 500
    assert rows[before]["train/gradient_steps"] > 0
    assert "replay memory of 2,000 steps of" in said
