"""What is told before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.run.beginning import begin
from learner.run.config import overlay
from learner.run.presets import preset

PAINTED = "tests.actors.fake_environments:Painted-v0"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (f"{PAINTED}(size=150)", "pictures of 150×150×3, 67,500 bytes a step, take long to learn from"),
        (f"{PAINTED}(size=150, parts=True)", "pictures of 150×150×3, 67,500 bytes a step"),
        (f"{PAINTED}(size=150) | Screen(height=30, width=45)", ""),
        (PAINTED, ""),
    ],
)
def test_large_pictures_are_a_line_in_the_log(
    env: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(overlay(preset("ppo"), {"env": env}, "test"), tmp_path / "run", resume=False, initial=None)
    assert said in caplog.text
    assert ("take long" in caplog.text) == bool(said)
