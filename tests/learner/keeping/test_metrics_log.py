"""The log of a run's metrics: what is read is what was written, whatever happened between."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import learner.keeping.metrics_log
from learner.keeping.metrics_log import MetricsLog, read_metrics
from learner.keeping.storage import Disk
from tests.learner import largest_file


def row(timesteps: int, **more: float) -> dict[str, float]:
    return {"time/total_timesteps": timesteps, "train/loss": timesteps / 8, **more}


def write_rows(path: Path, *timesteps: int) -> None:
    metrics = MetricsLog(Disk(path), timesteps=0)
    for step in timesteps:
        metrics.write(row(step))
    metrics.flush()


def read_events(path: Path) -> list[tuple[str, float, int]]:
    """(name, value, step) of the scalars that TensorBoard shows: a new session hides what has its step or a later one.

    A file is records of length, checksum, event, checksum.
    """
    shown: list[tuple[str, float, int]] = []
    for file in sorted(path.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
            assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked_crc32c(data[12 : 12 + length]),)
            event = Event.FromString(data[12 : 12 + length])
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                shown = [scalar for scalar in shown if scalar[2] < event.step]
            shown += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
            data = data[16 + length :]
    return shown


def assert_tensorboard_shows(path: Path, *timesteps: int) -> None:
    expected = [("time/total_timesteps", step, step) for step in timesteps]
    assert [scalar for scalar in read_events(path) if scalar[0] == "time/total_timesteps"] == expected


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, 20)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20)]


def test_a_row_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    metrics = MetricsLog(Disk(tmp_path), timesteps=0)
    for step in (10, 20):
        metrics.write(row(step))
        metrics.flush()
        assert read_metrics(tmp_path / "metrics.jsonl")[-1] == row(step)


def test_tensorboards_table_has_the_options_and_the_returns_first(tmp_path: Path) -> None:
    options = {"algorithm.gamma": 0.9, "seed": 3, "optimisation.compile": True, "network.hidden_sizes": [64, 32]}
    metrics = MetricsLog(Disk(tmp_path), timesteps=0, options=options)
    metrics.write(row(10, **{"rollout/ep_rew_mean": 4.5}))
    metrics.flush()
    seen = EventAccumulator(str(tmp_path))
    seen.Reload()
    assert seen.Scalars("rollout/ep_rew_mean")[0].value == 4.5
    contents = [seen.SummaryMetadata(f"_hparams_/{part}").plugin_data for part in ("session_start_info", "experiment")]
    assert {content.plugin_name for content in contents} == {"hparams"}
    start, experiment = (HParamsPluginData.FromString(content.content) for content in contents)
    found = start.session_start_info.hparams
    assert found["algorithm.gamma"].number_value == 0.9
    assert found["seed"].number_value == 3
    assert found["optimisation.compile"].bool_value is True
    assert found["network.hidden_sizes"].string_value == "[64, 32]"
    assert experiment.experiment.metric_infos[0].name.tag == "rollout/ep_rew_mean"


def test_no_metrics_yet(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_figures_not_known_yet_are_left_out(tmp_path: Path) -> None:
    metrics = MetricsLog(Disk(tmp_path), timesteps=0)
    metrics.write(row(10, mean=math.nan, best=-math.inf, kept=0.0))
    metrics.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10, kept=0.0)]
    assert {name for name, _, _ in read_events(tmp_path)} == {"time/total_timesteps", "train/loss", "kept"}


@pytest.mark.parametrize("half", ['{"time/total_timesteps": 30, "train/lo', '{"time/total_timesteps": 30', "{"])
def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path, half: str) -> None:
    write_rows(tmp_path, 10, 20)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20)]
    resumed = MetricsLog(Disk(tmp_path), timesteps=20)
    resumed.write(row(30))
    resumed.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20), row(30)]


def test_a_resumed_log_drops_what_will_be_made_again(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, 20, 30)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    events.rename(tmp_path / "events.out.tfevents.0000000001.earlier")  # two in one second would have one name
    resumed = MetricsLog(Disk(tmp_path), timesteps=20)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20)]
    resumed.write(row(25))
    resumed.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20), row(25)]
    assert_tensorboard_shows(tmp_path, 10, 20, 25)


def test_rewind_goes_back_to_the_mark_and_on_from_there(tmp_path: Path) -> None:
    metrics = MetricsLog(Disk(tmp_path), timesteps=0)
    metrics.write(row(10))
    metrics.mark()
    metrics.write(row(20))
    metrics.flush()
    metrics.write(row(30))
    metrics.rewind()
    metrics.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10)]
    metrics.write(row(25))
    metrics.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(25)]
    assert_tensorboard_shows(tmp_path, 10, 25)


def test_a_long_log_keeps_ever_fewer_rows_but_evaluations_and_the_last_before_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner.keeping.metrics_log, "_AT_FULL", 4)
    metrics = MetricsLog(Disk(tmp_path), timesteps=0)
    for step in range(1, 20):
        metrics.write({"time/total_timesteps": step, **({"eval/mean_reward": 1.0} if step == 11 else {})})
    kept = [1, 2, 3, 4, 6, 8, 10, 11, 15, 19]
    metrics.write(row(20))
    metrics.flush()
    assert [each["time/total_timesteps"] for each in read_metrics(tmp_path / "metrics.jsonl")] == kept
    metrics.mark()
    for step in (30, 40, 50, 60, 70):
        metrics.write(row(step))
    metrics.rewind()
    metrics.flush()
    kept.append(20)
    assert [each["time/total_timesteps"] for each in read_metrics(tmp_path / "metrics.jsonl")] == kept
    assert_tensorboard_shows(tmp_path, *kept)
    resumed = MetricsLog(Disk(tmp_path), timesteps=20)
    for step in (21, 22, 23, 24, 25):
        resumed.write(row(step))
    resumed.flush()
    assert [each["time/total_timesteps"] for each in read_metrics(tmp_path / "metrics.jsonl")] == [*kept, 24]


@pytest.mark.parametrize("flushed", [True, False])
def test_rewind_without_a_mark_goes_to_the_beginning(tmp_path: Path, flushed: bool) -> None:
    metrics = MetricsLog(Disk(tmp_path), timesteps=0)
    metrics.write(row(10))
    if flushed:
        metrics.flush()
    metrics.rewind()
    metrics.write(row(15))
    metrics.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(15)]
    assert_tensorboard_shows(tmp_path, 15)


def test_a_flush_that_fails_loses_nothing_and_writes_nothing_twice(tmp_path: Path) -> None:
    metrics = MetricsLog(Disk(tmp_path), timesteps=0)
    metrics.write(row(10))
    metrics.flush()
    room = (tmp_path / "metrics.jsonl").stat().st_size + 20  # half of the next line
    for step in (20, 30):
        metrics.write(row(step))
        with largest_file(room), pytest.raises(OSError, match="File too large"):
            metrics.flush()
    metrics.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20), row(30)]
    assert_tensorboard_shows(tmp_path, 10, 20, 30)


def test_tensorboard_events(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, 20)
    assert read_events(tmp_path) == [
        ("time/total_timesteps", 10, 10),
        ("train/loss", 1.25, 10),
        ("time/total_timesteps", 20, 20),
        ("train/loss", 2.5, 20),
    ]


def test_whoever_only_drives_a_run_and_logs_it_does_without_torch() -> None:
    """Its import takes seconds and 200 MB."""
    modules = "learner.train, learner.run.trainer, learner.keeping.tensorboard_events"
    script = f"import sys, {modules}; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout == "False\n"
