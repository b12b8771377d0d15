"""What is said of the time that an experiment still takes, and whether its table fits a terminal."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from learner.keeping.storage import Disk
from tune_configs.experiment import Experiment, Planned, configs_of, trials_of
from tune_configs.live_table import LiveTable


class Played:
    """A table of three losses of four seeds each, told of its trials as Tune tells it; they go two at a time.

    Args:
        lengths: seconds that each loss's trials train.
        done: trials that were done before.
    """

    def __init__(self, tmp_path: Path, lengths: dict[str, float], done: tuple[str, ...] = ()) -> None:
        experiment = Experiment(losses=tuple(lengths), seeds=4, env="CartPole-v1")
        trials = trials_of(Planned(experiment, configs_of(experiment), ""), Disk(tmp_path))
        self.lengths = lengths
        self.labels = {trial.name: trial.label for trial in trials}
        known = {name: lengths[self.labels[name]] for name in done}
        self.table = LiveTable(Console(file=io.StringIO()), trials, known)

    def start(self, name: str) -> None:
        self.table.on_trial_start(0, [], self._trial(name))

    def train(self, name: str, seconds: float) -> None:
        """The trial reports, after so many seconds of its training; a constant speed all the way."""
        progress = seconds / self.lengths[self.labels[name]]
        result = {"time_elapsed": seconds, "progress": progress, "episodes": 1000.0, "fps": 1000.0, "ep_rew_mean": 9.0}
        self.table.on_trial_result(0, [], self._trial(name), result)

    def end(self, name: str) -> None:
        self.train(name, self.lengths[self.labels[name]])
        self.table.on_trial_complete(0, [], self._trial(name))

    def fail(self, name: str) -> None:
        self.table.on_trial_result(0, [], self._trial(name), {"ep_rew_mean": math.nan, "progress": 1.0, "failure": "x"})
        self.table.on_trial_complete(0, [], self._trial(name))

    def _trial(self, name: str) -> Any:
        label, _, seed = name.rpartition("-")
        return SimpleNamespace(config={"trial": {"label": label, "seed": int(seed)}})


def test_the_time_left_is_right_from_the_first_report(tmp_path: Path) -> None:
    """However long processes took to start, and although a hundredth of one trial of twelve is done."""
    played = Played(tmp_path, {"vpg": 40.0, "cpg": 40.0, "ppo": 40.0})
    assert math.isnan(played.table.seconds_left())
    played.start("vpg-0")
    played.start("vpg-1")
    assert math.isnan(played.table.seconds_left())
    played.train("vpg-0", 0.4)
    assert played.table.seconds_left() == pytest.approx((12 * 40 - 0.4) / 2)
    played.train("vpg-1", 0.4)
    assert played.table.seconds_left() == pytest.approx((12 * 40 - 0.8) / 2)


def test_each_loss_takes_its_own_time(tmp_path: Path) -> None:
    played = Played(tmp_path, {"vpg": 100.0, "cpg": 10.0, "ppo": 40.0})
    played.start("vpg-0")
    played.start("cpg-0")
    played.train("vpg-0", 10.0)
    played.end("cpg-0")
    unknown = (100 + 10) / 2  # of ppo nothing is known yet
    assert played.table.seconds_left() == pytest.approx((90 + 3 * 100 + 3 * 10 + 4 * unknown) / 2)
    played.start("ppo-0")
    played.train("ppo-0", 10.0)
    assert played.table.seconds_left() == pytest.approx((90 + 3 * 100 + 3 * 10 + 30 + 3 * 40) / 2)


def test_what_was_done_before_is_not_taken_for_the_work_of_a_moment(tmp_path: Path) -> None:
    done = tuple(f"{label}-{seed}" for label in ("vpg", "cpg", "ppo") for seed in (0, 1, 2))
    played = Played(tmp_path, {"vpg": 40.0, "cpg": 60.0, "ppo": 80.0}, done)
    assert played.table.seconds_left() == pytest.approx(40 + 60 + 80)
    played.start("vpg-3")
    played.start("cpg-3")
    played.train("vpg-3", 4.0)
    assert played.table.seconds_left() == pytest.approx((36 + 60 + 80) / 2)


def test_the_longest_trial_is_waited_for(tmp_path: Path) -> None:
    done = tuple(f"{label}-{seed}" for label in ("vpg", "ppo") for seed in range(4))
    played = Played(tmp_path, {"vpg": 10.0, "ppo": 10.0, "cpg": 100.0}, (*done, "cpg-0", "cpg-1"))
    played.start("cpg-2")
    played.start("cpg-3")
    played.train("cpg-2", 90.0)
    played.train("cpg-3", 10.0)
    assert played.table.seconds_left() == pytest.approx(90)
    played.end("cpg-2")
    played.end("cpg-3")
    assert played.table.seconds_left() == 0


def test_a_failed_trial_has_nothing_left_and_says_nothing_of_others(tmp_path: Path) -> None:
    played = Played(tmp_path, {"vpg": 40.0, "cpg": 40.0, "ppo": 40.0})
    played.start("vpg-0")
    played.fail("vpg-0")
    assert math.isnan(played.table.seconds_left())
    played.start("cpg-0")
    played.train("cpg-0", 20.0)
    assert played.table.seconds_left() == pytest.approx(20 + 10 * 40)


def test_the_table_fits_into_80_columns(tmp_path: Path) -> None:
    played = Played(tmp_path, {"vpg": 40.0, "cpg": 40.0, "ppo": 40.0})
    played.start("vpg-0")
    played.train("vpg-0", 10.0)
    console = Console(width=80, file=io.StringIO(), record=True)  # the table's own has a line more when time goes by
    console.print(played.table.table())
    lines = console.export_text().splitlines()
    assert "1 running, 11 waiting; 7:50 left" in lines[0]
    assert lines[1].split() == ["trial", "state", "episodes", "mean", "return", "steps/s", "left"]
    assert ["vpg-0", "running", "1,000", "9.0", "1,000", "0:30"] in [line.split() for line in lines]
