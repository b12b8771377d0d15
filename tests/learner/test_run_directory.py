"""A run's directory, and the log of its metrics."""

from __future__ import annotations

import json
import math
import platform
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event, SessionLog

from actors.errors import UserError
from learner.config import TrainConfig, overlay
from learner.run_directory import MetricsLog, RunDirectory, read_metrics
from tests.learner import largest_file


def row(timesteps: int, **more: float) -> dict[str, float]:
    return {"time/total_timesteps": timesteps, "train/loss": timesteps / 8, **more}


def write_rows(path: Path, *timesteps: int) -> None:
    metrics = MetricsLog(path, timesteps=0)
    for step in timesteps:
        metrics.write(row(step))
    metrics.close()


def read_events(path: Path) -> list[tuple[str, float, int]]:
    """(name, value, step) of the scalars that TensorBoard shows: a new session hides what has its step or a later one.

    A file is records of length, checksum, event, checksum.
    """
    shown: list[tuple[str, float, int]] = []
    for file in sorted(path.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                shown = [scalar for scalar in shown if scalar[2] < event.step]
            shown += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
            data = data[16 + length :]
    return shown


def assert_tensorboard_shows(path: Path, *timesteps: int) -> None:
    expected = [("time/total_timesteps", step, step) for step in timesteps]
    assert [scalar for scalar in read_events(path) if scalar[0] == "time/total_timesteps"] == expected


# ---- the directory


def test_a_run_can_be_made_again_from_its_directory(tmp_path: Path) -> None:
    config = overlay(TrainConfig(), {"seed": 5, "update": {"max_grad_norm": math.inf}}, "test")
    directory = RunDirectory(tmp_path / "runs" / "first")
    directory.create(config, "ppo")
    assert RunDirectory(tmp_path / "runs" / "first").config() == config
    made_by = json.loads((tmp_path / "runs" / "first" / "made_by.json").read_text())
    assert made_by["preset"] == "ppo"
    assert "pytest" in made_by["command"]
    assert made_by["python"] == platform.python_version()
    assert made_by["numpy"] == np.__version__
    assert made_by["torch"] == torch.__version__
    assert {"touchdown", "ray", "gymnasium", "envpool", "box2d"} <= set(made_by)


def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(TrainConfig(seed=1), None)
    with pytest.raises(UserError, match="already holds a run: go on with --resume"):
        directory.create(TrainConfig(seed=2), None)
    assert directory.config().seed == 1


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        RunDirectory(tmp_path / "file").create(TrainConfig(), None)


def test_a_full_disk_leaves_no_half_of_a_run(tmp_path: Path) -> None:
    with largest_file(100), pytest.raises(UserError, match=r"cannot write to .*: File too large"):
        RunDirectory(tmp_path).create(TrainConfig(), None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no run in .*: config.json is missing"),
        (b'{"env": "CartP', "config.json is damaged"),
        (b"", "config.json is damaged"),
        (b"\xff\xfe\x00", "config.json"),
        (b"[]", "config.json"),
        (b'{"sed": 1}', r"config.json: unknown field 'sed'; did you mean seed\?"),
    ],
)
def test_a_directory_without_a_configuration(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        RunDirectory(tmp_path).config()
    assert "\n" not in str(error.value)


# ---- metrics


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, 20)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20)]


def test_a_row_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path, timesteps=0)
    metrics.write(row(10))
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10)]
    metrics.close()


def test_no_metrics_yet(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_figures_not_known_yet_are_left_out(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path, timesteps=0)
    metrics.write(row(10, mean=math.nan, best=-math.inf, kept=0.0))
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10, kept=0.0)]
    assert {name for name, _, _ in read_events(tmp_path)} == {"time/total_timesteps", "train/loss", "kept"}


@pytest.mark.parametrize("half", ['{"time/total_timesteps": 30, "train/lo', '{"time/total_timesteps": 30', "{"])
def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path, half: str) -> None:
    write_rows(tmp_path, 10, 20)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20)]
    resumed = MetricsLog(tmp_path, timesteps=20)
    resumed.write(row(30))
    resumed.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20), row(30)]


def test_a_resumed_log_drops_what_will_be_made_again(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, 20, 30)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    events.rename(tmp_path / "events.out.tfevents.0000000001.earlier")  # two in one second would have one name
    resumed = MetricsLog(tmp_path, timesteps=20)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20)]
    resumed.write(row(25))
    resumed.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20), row(25)]
    assert_tensorboard_shows(tmp_path, 10, 20, 25)


def test_rewind_drops_later_rows_and_goes_on(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path, timesteps=0)
    for step in (10, 20, 30):
        metrics.write(row(step))
    metrics.rewind(10)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10)]
    metrics.write(row(25))
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(25)]
    assert_tensorboard_shows(tmp_path, 10, 25)


def test_rewind_to_the_beginning(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path, timesteps=0)
    metrics.write(row(10))
    metrics.rewind(0)
    metrics.write(row(15))
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(15)]
    assert_tensorboard_shows(tmp_path, 15)


def test_tensorboard_events(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, 20)
    assert read_events(tmp_path) == [
        ("time/total_timesteps", 10, 10),
        ("train/loss", 1.25, 10),
        ("time/total_timesteps", 20, 20),
        ("train/loss", 2.5, 20),
    ]
