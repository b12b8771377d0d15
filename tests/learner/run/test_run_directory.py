"""A run's directory."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.errors import UserError
from learner.run.config import TrainConfig, overlay
from learner.run.run_directory import RunDirectory
from tests.learner import largest_file


def test_a_run_can_be_made_again_from_its_directory(tmp_path: Path) -> None:
    config = overlay(TrainConfig(), {"seed": 5, "update": {"max_grad_norm": math.inf}}, "test")
    directory = RunDirectory(tmp_path / "runs" / "first")
    directory.create(config, "ppo")
    assert RunDirectory(tmp_path / "runs" / "first").config() == config
    made_by = json.loads((tmp_path / "runs" / "first" / "made_by.json").read_text())
    assert made_by["preset"] == "ppo"
    assert made_by["command"] == shlex.join(sys.orig_argv)
    assert made_by["python"] == platform.python_version()
    assert made_by["numpy"] == np.__version__
    assert made_by["torch"] == torch.__version__
    assert {"touchdown", "ray", "gymnasium", "envpool", "box2d"} <= set(made_by)


def test_a_config_with_an_infinity_is_json_to_any_reader_and_older_ones_still_load(tmp_path: Path) -> None:
    config = overlay(TrainConfig(), {"optimisation": {"max_grad_norm": math.inf}}, "test")
    RunDirectory(tmp_path).create(config, "ppo")
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["optimisation"]["max_grad_norm"] == "Infinity"
    (tmp_path / "config.json").write_text(text.replace('"Infinity"', "Infinity"))  # as Python writes it
    assert RunDirectory(tmp_path).config() == config
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json is damaged or not JSON"):
        RunDirectory(tmp_path).config()


def test_the_record_follows_a_run_that_goes_on(tmp_path: Path) -> None:
    config, directory = overlay(TrainConfig(), {"stop": {"total_timesteps": 1000}}, "test"), RunDirectory(tmp_path)
    directory.create(config, "ppo", "train")
    for name in ("result.json", "evaluation.json"):
        (tmp_path / name).write_text("{}")
    made_by = json.loads((tmp_path / "made_by.json").read_text())
    (tmp_path / "made_by.json").write_text(json.dumps(made_by | {"numpy": "1.0"}))  # it was begun with another
    longer = overlay(config, {"stop": {"total_timesteps": 2000}, "optimisation": {"learning_rate": 1e-4}}, "test")
    directory.go_on(longer, 1024, "train more")
    directory.go_on(longer, 1536)
    assert directory.config() == longer
    assert directory.result() is None
    assert not directory.is_evaluated()
    made_by = json.loads((tmp_path / "made_by.json").read_text())
    assert made_by["command"] == "train"
    first, second = made_by["resumed"]
    rate = config.optimisation.learning_rate
    assert first == {
        "command": "train more",
        "total_timesteps": 1024,
        "changed": {"total_timesteps": [1000, 2000], "learning_rate": [rate, 1e-4], "numpy": ["1.0", np.__version__]},
    }
    assert second["command"] == shlex.join(sys.orig_argv)
    assert "learning_rate" not in second["changed"]


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    RunDirectory(tmp_path).create(TrainConfig(), None)
    for name in ("made_by.json", "result.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(UserError, match=r"result\.json must hold a JSON object, not list"):
        RunDirectory(tmp_path).result()
    with pytest.raises(UserError, match=r"made_by\.json must hold a JSON object, not list"):
        RunDirectory(tmp_path).go_on(TrainConfig(), 0)


def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(TrainConfig(seed=1), None)
    with pytest.raises(UserError, match="already holds a run: go on with --resume"):
        directory.create(TrainConfig(seed=2), None)
    assert directory.config().seed == 1


def test_checkpoints_without_a_configuration_are_a_run_too(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
    with pytest.raises(UserError, match="already holds a run"):
        RunDirectory(tmp_path).create(TrainConfig(), None)


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
