"""Presets by environment: what is known of a pair is taken, said, and left out when asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actors.environments import describe
from actors.errors import UserError
from learner.run.config import TrainConfig
from learner.run.presets import preset
from learner.run.tuned import TUNED, tuned_for, with_tuned
from learner.train import read_command


@pytest.mark.parametrize(("name", "env"), TUNED)
def test_every_pair_is_of_a_preset_and_an_environment(name: str, env: str) -> None:
    assert describe(env).env_id == env
    tuned = TUNED[name, env]
    config = with_tuned(preset(name), tuned, env)
    assert config.env == env
    assert config.stop.total_timesteps == tuned.changes["stop"]["total_timesteps"]
    assert tuned.origin


def train(*words: str) -> TrainConfig:
    return read_command([*words]).options


def test_the_command_takes_them() -> None:
    config = train("--env", "MountainCar-v0", "--seed", "4")
    assert (config.network.normalize_observations, config.algorithm.gamma) == (True, 0.99)
    assert (config.stop.total_timesteps, config.seed) == (300_000, 4)


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_it_says_where_they_are_from(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learner.train", "--env", "CartPole-v1", "--total-timesteps", "5000"]
    rest = ["--run-dir", str(tmp_path / "run"), "--evaluate-episodes", "0", "--no-video"]
    said = subprocess.run([*command, *rest], capture_output=True, text=True, timeout=200, check=True).stdout
    assert "ppo on CartPole-v1: settings from the preset itself, and a budget" in said
    assert "--no-tuned" in said


def test_they_are_under_files_and_options(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"env": "MountainCar-v0", "algorithm": {"gamma": 0.95}}')
    config = train("--config", str(tmp_path / "mine.json"), "--total-timesteps", "1e6")
    assert (config.algorithm.gamma, config.stop.total_timesteps) == (0.95, 1_000_000)
    assert config.network.normalize_observations


def test_arguments_and_wrappers_do_not_matter_and_a_version_need_not_be_given() -> None:
    config = train("--env", "MountainCar", "--env-kwargs", "goal_velocity=0.01", "--wrappers", "TimeAwareObservation")
    assert config.network.normalize_observations
    assert config.env == "MountainCar(goal_velocity=0.01) | TimeAwareObservation"


@pytest.mark.parametrize(
    "words",
    [("--env", "MountainCar-v0", "--no-tuned"), ("--env", "MountainCar-v0", "--preset", "a2c"), ("--seed", "1")],
)
def test_they_are_left_out(words: tuple[str, ...]) -> None:
    base = preset("a2c" if "a2c" in words else "ppo")
    config = train(*words)
    assert (config.network, config.algorithm, config.stop) == (base.network, base.algorithm, base.stop)


def test_of_an_environment_that_is_not_there() -> None:
    assert tuned_for("ppo", "LunarLander-v3") is None
    with pytest.raises(UserError, match="did you mean MountainCar-v0"):
        tuned_for("ppo", "MountainCr-v0")
