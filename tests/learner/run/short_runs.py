"""Runs of CartPole that learn in seconds, what happens to them on their way, and what holds of each."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ray._private import state as ray_state

from actors.policy import Policy
from learner.keeping.metrics_log import read_metrics
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.presets import preset
from learner.run.trainer import Trainer

CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1",
    "rollout": {"n_envs": 16, "n_steps": 64},
    "algorithm": {"gamma": 0.99, "gae_lambda": 0.95, "reward_scale": 0.05, "n_epochs": 6, "batch_size": 256},
    "optimisation": {"learning_rate": 3e-3},
    "network": {"normalize_observations": False},
    "fleet": {"cpus_per_actor": 0.0},  # those that wait for the next run are in nobody's way
}


FOR_EVER = {"total_timesteps": 10**9}
"""Conditions of a run that a callback stops."""


def cartpole(preset_name: str = "ppo", **changes: dict[str, Any]) -> TrainConfig:
    """CartPole settings that learn in seconds, with changes over them."""
    return overlay(overlay(preset(preset_name), CARTPOLE, "test"), changes, "test")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Act(Callback):
    """Does something once, after the update with that number."""

    def __init__(self, after: int, action: Callable[[Trainer], None]) -> None:
        self._after, self._action = after, action
        self.done = False

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if not self.done and metrics["train/n_updates"] >= self._after:
            self.done = True
            self._action(trainer)


def killed(actor: Any) -> bool:
    """SIGKILL a Ray actor's process; False: it has none just now.

    By its name, another could be hit: a spare one, or one that is just about to end.
    """
    process = ray_state.actors(actor._actor_id.hex()).get("Pid", 0)
    if process:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            return True
    return False


def flying_actors(trainer: Trainer) -> list[Any]:
    assert trainer.fleet is not None
    return [slot.actor for slot in trainer.fleet._pool.slots if slot.ready]


def kill_actor(trainer: Trainer) -> None:
    assert killed(flying_actors(trainer)[0])


def kill_learner(trainer: Trainer) -> None:
    assert killed(trainer.learners._learners[0])


def check_consistent(run_dir: Path, counters: Counters) -> list[dict[str, Any]]:
    """Every update is in metrics.jsonl once, in order, and the last row agrees with the counters."""
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if "train/n_updates" in row]
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    steps = [row["time/total_timesteps"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == counters.total_timesteps
    return rows


def equal_weights(one: Policy, other: Policy) -> bool:
    return all(np.array_equal(array, other.weights[name]) for name, array in one.weights.items())
