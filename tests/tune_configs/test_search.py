"""Search: both schedulers end to end on real Ray Tune, and what is said of what they find."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray import tune

from actors.errors import UserError
from learner.keeping.checkpoint import load_checkpoint
from learner.run.config import read_config
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from tune_configs.search import EXPLODED, METRIC, best_of, main


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(
    ("name", "scheduler", "room"),
    [
        ("ppo", "asha", ["--concurrent", 1]),  # all in one place, whose processes start once
        ("ppo", "pbt", []),  # more members than places, so that they take turns
        ("dqn", "pbt", []),  # in one place members would go one after the other, and none take over from another
    ],
)
def test_a_search_writes_a_preset_file(
    name: str,
    scheduler: str,
    room: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One in a process of its own, the others here, where what they need is imported."""
    out = tmp_path / "best.json"
    options = ["--preset", name, "--env", "CartPole-v1", "--trials", 3, "--steps", 10_000, "--scheduler", scheduler]
    options += [*room, "--results", tmp_path, "--name", "search", "--out", out]
    words = [*map(str, options)]
    if scheduler == "asha":
        command = [sys.executable, "-m", "tune_configs.search", *words]
        result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
        assert result.returncode == 0, result.stderr + result.stdout
        said = result.stdout
    else:
        monkeypatch.setattr(sys, "argv", ["search", *words])
        monkeypatch.setattr(ray, "shutdown", lambda: None)  # the cluster is for all tests
        main()
        said = capsys.readouterr().out
    assert f"python -m learner.train --config {out}" in said
    assert "failed" not in said
    best = read_config(out, preset(name))
    assert best.env == "CartPole-v1"
    assert best.fleet == preset(name).fleet
    assert best.checkpoint == preset(name).checkpoint
    made_by = json.loads((tmp_path / "search" / "made_by.json").read_text())
    assert "--trials 3" in made_by["command"]
    assert made_by["ep_rew_mean"] > 15
    if name == "dqn":  # a member takes over what another remembers, not only its weights
        for member in (tmp_path / "search" / "runs").iterdir():
            state, counters = load_checkpoint(RunDirectory(member).checkpoints)
            assert len(state["memory.column.returns"]) == counters["total_timesteps"] >= 10_000


@pytest.mark.usefixtures("ray_cluster")
def test_of_equal_trials_none_is_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MountainCar gives -200 to whoever does not know it yet."""
    out = tmp_path / "best.json"
    options = ["--env", "MountainCar-v0", "--trials", "2", "--steps", "10000", "--results", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main([*options, "--concurrent", "1", "--name", "search", "--out", str(out)])
    assert end.value.code == 2
    assert "all 2 trials ended at a mean return of -200, so that none is best" in capsys.readouterr().err
    assert not out.exists()


Ended = Callable[..., tune.ResultGrid]
ENDS = {
    **{"nine": {METRIC: 9.0}, "nine again": {METRIC: 9.0}, "nan": {METRIC: math.nan}, "exploded": {METRIC: EXPLODED}},
    **{f"learned {i}": {METRIC: 51.0, "first_mean_return": 9.0 + i} for i in range(3)},
    **{f"stayed {i}": {METRIC: 51.0, "first_mean_return": 51.0} for i in range(3)},
}
"""What trials report last, by their names."""


@pytest.fixture(scope="module")
def ended(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Results of real trials, as if those of the given names had been all of a search."""

    def trial(point: dict[str, str], ends: dict[str, dict[str, float]]) -> None:
        tune.report(ends[point["name"]])

    everything = tune.Tuner(
        tune.with_parameters(trial, ends=ENDS),
        param_space={"name": tune.grid_search([*ENDS])},
        tune_config=tune.TuneConfig(metric=METRIC, mode="max", max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(name="ends", storage_path=str(tmp_path_factory.mktemp("searches")), verbose=0),
    ).fit()
    path = everything.experiment_path
    trials = {one.config["name"]: one for one in tune.ExperimentAnalysis(path).trials or ()}

    def of(*names: str) -> tune.ResultGrid:
        chosen = [trials[name] for name in names]
        return tune.ResultGrid(tune.ExperimentAnalysis(path, trials=chosen, default_metric=METRIC, default_mode="max"))

    return of


def test_what_exploded_or_never_ended_an_episode_makes_no_difference(ended: Ended) -> None:
    with pytest.raises(UserError, match="all 2 trials ended at a mean return of 9"):
        best_of(ended("nine", "nan", "exploded", "nine again"), 1000)
    with pytest.raises(UserError, match="no trial reported a finite mean return within 1000 steps"):
        best_of(ended("nan", "exploded"), 1000)
    assert best_of(ended("nan", "exploded", "nine"), 1000).config == {"name": "nine"}


def test_members_of_a_population_that_end_as_copies_of_one_have_a_best(ended: Ended) -> None:
    assert best_of(ended("learned 0", "learned 1", "learned 2"), 1000, population=True).metrics
    with pytest.raises(UserError, match="all 3 trials ended at a mean return of 51"):
        best_of(ended("stayed 0", "stayed 1", "stayed 2"), 1000, population=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "pp"], "unknown preset 'pp'"),
        (["--env", "CartPol-v1"], "unknown environment"),
        (["--preset", "q_learning", "--env", "LunarLander-v3"], "q_learning cannot learn LunarLander-v3: a table has"),
        (["--preset", "sac", "--env", "CartPole-v1"], "sac cannot learn CartPole-v1: sac learns continuous actions"),
        (["--preset", "dt"], "a search goes by what runs fly, and dt flies nothing: compare files of settings with"),
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
