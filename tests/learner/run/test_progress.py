"""What is shown of a run while it goes on."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.progress import ProgressDisplay

ROW = {
    **{"rollout/ep_rew_mean": -178.4, "rollout/policy_lag": 1.0, "time/fps": 39_566.2},
    **{"time/learner_wait": 0.1, "time/learner_busy": 0.4, "time/total_timesteps": 987_654.0},
}
COUNTERS = Counters(total_timesteps=987_654, episodes=604, seconds=7225.0, best_mean_return=-160.2)


def shown(width: int) -> str:
    """The screen after an update, of a run that has a thousand times as much to do."""
    screen = io.StringIO()
    display = ProgressDisplay(Console(file=screen, width=width, force_terminal=True, color_system=None))
    config = overlay(TrainConfig(), {"stop": {"total_timesteps": 10_000_000}}, "test")
    trainer: Any = SimpleNamespace(config=config, counters=COUNTERS, directory="runs/first", fleet=None, dataset=None)
    display.on_start(trainer)
    display.on_update(trainer, ROW)
    display.close()
    return screen.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_live_line_keeps_its_bar_and_the_time_left(width: int) -> None:
    line = next(part for part in reversed(re.split(r"[\r\n]|\x1b\[[^m]*?[A-Za-z]", shown(width))) if "steps" in part)
    assert re.match(r"[━╸╺ ]{10} ", line)
    assert "987,654 steps" in line
    assert "at most 18:18:48 left" in line
    assert "…" not in line
    assert len(line) <= width
    assert ("best -160.2" in line) == (width >= 80)
    assert ("learner waits  20%" in line) == (width >= 200)
