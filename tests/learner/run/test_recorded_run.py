"""Runs that keep what they fly, and policies on their way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.errors import UserError
from learner.dataset.dataset import open_dataset
from learner.keeping.metrics_log import read_metrics
from learner.keeping.policies import find_version
from learner.keeping.storage import open_storage
from learner.run.callback import Callback
from learner.run.config import CheckpointConfig
from learner.run.run_directory import RunDirectory
from learner.run.trainer import Trainer
from tests.learner.run.short_runs import cartpole


@pytest.mark.usefixtures("kept_processes")
@pytest.mark.parametrize(
    "rollout", [{"n_envs": 8, "n_steps": 32}, {"n_envs": 8, "n_steps": None, "episodes_per_env": 2}], ids=str
)
def test_all_whole_episodes_that_a_run_flies_are_kept(rollout: dict[str, Any], tmp_path: Path) -> None:
    config = cartpole(rollout=rollout, stop={"total_timesteps": 2000}, checkpoint={"keep_every": 2})
    result = Trainer(dataclasses.replace(config, record=True), tmp_path / "run", preset="ppo").run()
    dataset = open_dataset(tmp_path / "run" / "recorded")
    assert dataset.num_episodes >= result.counters.episodes  # and those flown with the last policies, of no update
    assert dataset.num_steps <= result.counters.total_timesteps + 3 * 8 * 200
    assert dataset.sources == [{"policy": "run", "preset": "ppo", "training": True}]
    for index in range(len(dataset.parts)):
        part = dataset.part(index)
        starts = np.cumsum(part.segment_lengths) - part.segment_lengths
        np.testing.assert_allclose(np.add.reduceat(part.rewards, starts), part.episode_returns)
        assert (part.episode_returns == part.segment_lengths).all()  # a reward of 1 a step
    updates = result.policy.spec.version
    kept = open_storage(tmp_path / "run" / "versions").names()
    assert sorted(map(int, kept)) == [*range(2, updates + 1, 2)]
    assert find_version(f"{tmp_path}/run@2").spec.version == 2
    assert RunDirectory(tmp_path / "run").config() == dataclasses.replace(config, record=True)


def test_a_run_keeps_no_versions_of_every_no_update() -> None:
    with pytest.raises(UserError, match="keep_every must be 1 or more, or None, not 0"):
        CheckpointConfig(keep_every=0)


class OneActorFewer(Callback):
    """Has a fleet of two end one of them on the way."""

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if metrics["train/n_updates"] == 6:
            assert trainer.fleet is not None
            assert trainer.fleet.size == 2
            pool = trainer.fleet._pool
            pool._config, pool._resized = dataclasses.replace(pool._config, actors=1), 0.0


@pytest.mark.usefixtures("kept_processes")
def test_an_actor_that_ends_before_the_run_has_written_what_it_recorded(tmp_path: Path) -> None:
    config = cartpole(rollout={"n_envs": 8, "n_steps": 32}, stop={"total_timesteps": 4000}, fleet={"actors": 2})
    trainer = Trainer(dataclasses.replace(config, record=True), tmp_path / "run", callbacks=[OneActorFewer()])
    trainer.run()
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["rollout/actors"] == 1
    writers = {part.rpartition("-")[0] for part in open_dataset(tmp_path / "run" / "recorded").parts}
    assert len(writers) == 2
