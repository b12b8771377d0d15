"""What is told of a policy that is published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from learner.dataset.config import DatasetConfig
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from serve.hub.source import read_source
from tests.actors.examples import policy_for


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/data/ada/lander", "lander"),
        ("../ada/lander", "lander"),
        ("~/lander", "lander"),
        ("datasets/lander", "datasets/lander"),
        (None, None),
    ],
)
def test_where_recordings_were_is_nobodys_business(location: str | None, told: str | None, tmp_path: Path) -> None:
    config = dataclasses.replace(preset("bc"), dataset=DatasetConfig(location))
    RunDirectory(tmp_path / "run").create(config, "bc", "python -m learner.train")
    source = read_source(tmp_path / "run", policy_for("CartPole-v1"))
    assert source.config
    assert source.config["dataset"]["dataset"] == told
