"""The picture of several runs' curves, from what their directories hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.keeping.metrics_log import MetricsLog
from learner.plot import draw, grouped, main, read
from learner.run.config import overlay
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory


def make_run(path: Path, name: str = "ppo", rows: int = 5, **changes: Any) -> str:
    """A run's directory: a return of 10 a thousand steps, and of its seed."""
    config = overlay(preset(name), {"env": "CartPole-v1", **changes}, "test")
    RunDirectory(path).create(config, name)
    log = MetricsLog(RunDirectory(path).storage, 0)
    for i in range(1, rows + 1):
        row = {"time/total_timesteps": 1000 * i, "time/episodes": 20 * i, "rollout/ep_rew_mean": 10.0 * i + config.seed}
        log.write(row | {"time/time_elapsed": i / 2})
    log.flush()
    return str(path)


def test_runs_that_differ_in_their_seeds_are_one_curve(tmp_path: Path) -> None:
    places = [make_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    other = make_run(tmp_path / "other", algorithm={"gamma": 0.5})
    a2c = make_run(tmp_path / "a2c", "a2c")
    groups = grouped([read(place) for place in [*places, other, a2c]])
    sizes = {name: len(rows) for name, rows in groups.items()}
    assert sizes == {
        "ppo on CartPole-v1 (gamma 0.998)": 3,
        "ppo on CartPole-v1 (gamma 0.5)": 1,
        "a2c on CartPole-v1": 1,
    }
    (axis,) = draw(groups, "steps", "rollout/ep_rew_mean").axes
    means = {line.get_label(): line for line in axis.lines if not str(line.get_label()).startswith("_")}
    assert set(means) == set(groups)
    xs, ys = means["ppo on CartPole-v1 (gamma 0.998)"].get_data()
    np.testing.assert_allclose(ys, np.asarray(xs) / 100 + 1)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_command_writes_a_picture(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"curves.{suffix}"
    main([make_run(tmp_path / "run"), "--out", str(out), "--x", "seconds"])
    assert out.read_bytes()[:5] == {"png": b"\x89PNG\r", "svg": b"<?xml"}[suffix]
    assert "ppo on CartPole-v1: 1" in capsys.readouterr().out


def test_what_is_no_run_is_left_out_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(log.read_text() + 'null\n{"time/total_timesteps": "x", "rollout/ep_rew_mean": [1]}\n')
    make_run(tmp_path / "young", rows=1)
    (tmp_path / "sb3").mkdir()
    main([run, run, str(tmp_path / "young"), str(tmp_path / "sb3"), "--out", str(tmp_path / "curves.png")])
    said = capsys.readouterr().out.replace("\n", "")
    assert "runs of ppo on CartPole-v1: 1" in said
    assert said.count("left out: ") == 2
    assert "young has one update yet: no curve" in said


def test_nothing_that_a_run_names_is_imported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["algorithm"] |= {"name": "tests.learner.broken_module:Own", "advantage": "tests.learner.broken_module:own"}
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "env": "Cart$x_$-v1"}))
    main([run, "--out", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which runs? Give their directories, as in runs/*"),
        (["{tmp}/run", "--y", "rollout/ep_rew_men"], "did you mean rollout/ep_rew_mean"),
        (["{tmp}/run", "--out", "curves.gif"], "out must end in .png, .svg or .pdf, not curves.gif"),
        (["{tmp}/none"], "none: config.json is missing"),
        (["{tmp}/empty"], "has no update yet: no curve"),
    ],
)
def test_what_cannot_be_drawn(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "empty", rows=0)
    with pytest.raises(SystemExit) as ended:
        main([word.replace("{tmp}", str(tmp_path)) for word in arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
