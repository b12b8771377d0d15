"""What a run keeps, and in which order it is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.run.config import TrainConfig
from learner.run.counters import Counters
from learner.run.result import Result
from learner.run.run_directory import RunDirectory
from learner.run.run_recorder import Checkpoint, RunRecorder
from tests.actors.examples import policy_for


def test_a_run_is_not_said_to_have_ended_while_its_checkpoint_is_not_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who resumes it would be told of an end, and find a learner from before it."""

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("learner.run.run_recorder.save_checkpoint", full)
    monkeypatch.setattr("learner.run.run_recorder.PATIENCE", 0.1)
    directory = RunDirectory(tmp_path)
    saver = RunRecorder(directory, 2, None)
    saver.save(Checkpoint(1, {"w": np.zeros(1, np.float32)}, {}))
    config = TrainConfig()
    result = Result("budget used up", policy_for("CartPole-v1"), directory, config, Counters(total_timesteps=10**9))
    with pytest.raises(OSError, match=r"No space left|did not answer"):
        saver.conclude(result)
    saver.close()
    assert directory.result() is None
