"""Search: what is searched, and both schedulers end to end on real Ray Tune."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray.tune.schedulers.pbt import _explore
from ray.tune.search.sample import Categorical

from learner.config import TrainConfig, overlay, read_config
from learner.presets import PRESETS, preset
from tune_configs.search import main, mutations_of
from tune_configs.spaces import FIXED_AT_START, nested, space_of


@pytest.mark.parametrize("name", PRESETS)
def test_a_space_has_what_means_something_to_the_preset(name: str) -> None:
    space = space_of(preset(name))
    assert ("loss.clip_range" in space) == (name == "ppo")
    assert ("update.n_epochs" in space) == (name == "ppo")
    assert ("loss.gae_lambda" in space) == (name in ("a2c", "ppo", "impala"))
    assert ("loss.vf_coef" in space) == (name in ("aac", "a2c", "ppo", "impala"))
    for field in space:
        section, _, leaf = field.partition(".")
        assert hasattr(getattr(TrainConfig(), section), leaf)


def test_a_point_is_a_configuration_file() -> None:
    point = {"loss.gamma": 0.9, "loss.clip_range": 0.1, "network.hidden_sizes": "32 32"}
    assert nested(point) == {"loss": {"gamma": 0.9, "clip_range": 0.1}, "network": {"hidden_sizes": [32, 32]}}


@pytest.mark.parametrize("name", PRESETS)
def test_a_population_stays_in_the_space(name: str) -> None:
    """Its mutations of every member are configurations, whatever they are mutated from."""
    space = {key: domain for key, domain in space_of(preset(name)).items() if key not in FIXED_AT_START}
    mutations = mutations_of(space)
    assert set(mutations) == set(space)
    point = {key: domain.sample() for key, domain in space.items()}
    for _ in range(200):
        point, _operations = _explore(point, mutations, 0.25, (1.2, 0.8), None)
        assert overlay(preset(name), nested(point), "point")
        for key, domain in space.items():
            if isinstance(domain, Categorical):
                assert point[key] in domain.categories


@pytest.mark.parametrize("scheduler", ["asha", "pbt"])
def test_a_search_writes_a_preset_file(scheduler: str, tmp_path: Path) -> None:
    out = tmp_path / "best.json"
    options = ["--env", "CartPole-v1", "--trials", 3, "--steps", 20_000, "--scheduler", scheduler]
    options += ["--results", tmp_path, "--name", "search", "--out", out]
    command = [sys.executable, "-m", "tune_configs.search", *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    assert f"python -m learner.train --config {out}" in result.stdout
    assert "failed" not in result.stdout
    best = read_config(out, preset("ppo"))
    assert best.env == "CartPole-v1"
    assert best.fleet == preset("ppo").fleet
    made_by = json.loads((tmp_path / "search" / "made_by.json").read_text())
    assert "--trials 3" in made_by["command"]
    assert made_by["ep_rew_mean"] > 15


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "pp"], "unknown preset 'pp'"),
        (["--env", "CartPol-v1"], "unknown environment"),
        (["--trials", "0"], "trials must be 1 or more, not 0"),
        (["--trials", "1", "--scheduler", "pbt"], "pbt needs a population"),
        (["--scheduler", "grid"], "invalid choice 'grid'"),
        (["--results", "s3://bucket/searches"], "--results must be a path"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--results", str(tmp_path), *arguments])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
