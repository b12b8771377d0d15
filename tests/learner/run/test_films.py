"""Films beside training: made, kept in the run's directory, and no reason for a run to end."""

from __future__ import annotations

import logging
from pathlib import Path

import imageio.v3
import pytest

from learner.run.films import Films
from learner.run.trainer import Trainer
from tests.learner.run.short_runs import cartpole

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_processes")]


def test_a_policy_is_filmed_beside_training(tmp_path: Path) -> None:
    config = cartpole(stop={"total_timesteps": 8_000})
    result = Trainer(config, tmp_path, callbacks=[Films(3_000)]).run()
    videos = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert 1 <= len(videos) <= 3
    assert all(0 < int(name.removesuffix(".mp4")) <= result.counters.total_timesteps for name in videos)
    assert imageio.v3.imread(tmp_path / "videos" / videos[0]).shape[1:] == (400, 600, 3)


def test_what_cannot_be_filmed_trains_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = cartpole(env="tests.actors.fake_environments:Coin-v0", stop={"total_timesteps": 3_000})
    with caplog.at_level(logging.WARNING, logger="touchdown"):
        result = Trainer(config, tmp_path, callbacks=[Films(100)]).run()
    assert result.counters.total_timesteps >= 3_000
    said = [message for message in caplog.messages if "no films" in message]
    assert len(said) == 1
    assert "renders no pictures" in said[0]
    assert not (tmp_path / "videos").exists()
