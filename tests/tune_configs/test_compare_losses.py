"""``python -m tune_configs.compare_losses`` as a user runs it, on real Ray Tune."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
import torch

from actors.policy import Policy
from learner.evaluate import find_policy
from learner.metrics_log import read_metrics, read_rows
from learner.storage import open_storage

SMALL = ["--env", "CartPole-v1", "--evaluation-episodes", "5"]
needs_sb3 = pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs the peers extra")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tune_configs.compare_losses", *map(str, arguments)]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=280, check=False, cwd=cwd)


def summary_of(directory: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary


def test_the_same_experiment_gives_the_same_summary(tmp_path: Path) -> None:
    """Two losses, two seeds, twice: on processes that were there, in whatever order the trials ended."""
    options = [*SMALL, "--losses", "cpg", "ppo", "--seeds", 2, "--episodes", 150, "--max-policy-lag", 0]
    first = run(*options, "--results", tmp_path, "--name", "first")
    assert first.returncode == 0, first.stderr
    assert "cpg-1: done, 160 episodes" in first.stdout
    assert "4 of 4 trials to run" in first.stdout
    again = run(*options, "--results", tmp_path, "--name", "again", "--concurrent", 1)
    assert again.returncode == 0, again.stderr
    one, other = summary_of(tmp_path / "first"), summary_of(tmp_path / "again")
    assert one.pop("times") != other.pop("times")
    assert one == other

    assert set(one["losses"]) == {"cpg", "ppo"}
    assert one["losses"]["cpg"]["seeds"] == 2
    assert one["losses"]["cpg"]["episodes"] == 320  # batches of 32: the fifth ends the budget of 150
    assert one["losses"]["ppo"]["best_mean_return"] > 20
    chances = one["probability_of_improvement"]
    assert chances["cpg"]["ppo"] + chances["ppo"]["cpg"] == pytest.approx(1)
    assert not one["failed"]
    assert not one["unfinished"]
    directory = tmp_path / "first"
    assert {path.name for path in directory.glob("*.png")} >= {"four_panels.png", "performance_profile.png"}
    assert "| loss | IQM |" in (directory / "summary.md").read_text()
    run_dir = directory / "runs" / "cpg-0"
    assert Policy.load(run_dir / "policy").spec.env_id == "CartPole-v1"
    assert list(run_dir.glob("events.out.tfevents.*"))


def test_a_killed_experiment_goes_on(tmp_path: Path) -> None:
    """Finished trials are kept; the others go on from their checkpoints, and nothing is counted twice."""
    directory = tmp_path / "killed"
    options = [*SMALL, "--losses", "cpg", "ppo", "--seeds", 2, "--steps", 60_000, "--results", tmp_path]
    process = subprocess.Popen(command(*options, "--name", "killed"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (list(directory.glob("runs/*/outcome.json")) and _started(directory)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in directory.glob("runs/*/outcome.json")}

    resumed = run("--resume", directory)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{4 - len(kept)} of 4 trials to run" in resumed.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for run_dir in (directory / "runs").iterdir():
        rows = read_metrics(run_dir / "metrics.jsonl")
        assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1)), run_dir.name
        assert json.loads((run_dir / "outcome.json").read_text())["steps"] == rows[-1]["time/total_timesteps"]
    assert not summary_of(directory)["unfinished"]


@pytest.mark.usefixtures("s3")
def test_results_in_an_object_store(tmp_path: Path) -> None:
    """All of an experiment is in the bucket, none of it here; a resume with nothing to do writes the report again."""
    location = "s3://bucket/experiments"
    options = [*SMALL, "--losses", "cpg", "ppo", "--seeds", 1, "--episodes", 64, "--results", location, "--name", "x"]
    first = run(*options, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"report: {location}/x/index.html" in first.stdout
    directory = open_storage(f"{location}/x")
    assert json.loads(directory.read("summary.json"))["losses"]["cpg"]["seeds"] == 1
    assert directory.read("four_panels.png").startswith(b"\x89PNG")
    for name in ("cpg-0", "ppo-0"):
        trial = directory.within(f"runs/{name}")
        assert json.loads(trial.read("outcome.json"))["steps"] == read_rows(trial)[-1]["time/total_timesteps"]
        assert find_policy(str(trial)).spec.env_id == "CartPole-v1"

    directory.remove("index.html")
    summary = directory.read("summary.json")
    resumed = run("--resume", f"{location}/x", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "0 of 2 trials to run" in resumed.stdout
    assert b"cpg-0" in directory.read("index.html")
    assert directory.read("summary.json") == summary
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_run_one_experiment(tmp_path: Path) -> None:
    options = [*SMALL, "--losses", "cpg", "--seeds", 1, "--episodes", 64, "--results", tmp_path, "--name", "x"]
    assert run(*options).returncode == 0
    with filelock.FileLock(tmp_path / "x" / ".lock"):
        result = run("--resume", tmp_path / "x")
    assert result.returncode == 2
    assert "another process runs the experiment" in result.stderr


@pytest.mark.parametrize("killed", ["ray::ImplicitFunc", "ray::LearnerActor", "ray::RolloutActor"])
def test_a_trial_survives_its_processes(tmp_path: Path, killed: str) -> None:
    """The trial's own process, its learner, its actor: each is killed once, and no update is lost or counted twice."""
    options = [*SMALL, "--losses", "cpg", "--seeds", 1, "--steps", 60_000, "--results", tmp_path, "--name", "x"]
    process = subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not _started(tmp_path / "x"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    victims = [one for one in family if " ".join(one.cmdline()).startswith(killed)]
    assert len(victims) == 1, [one.cmdline() for one in family]
    victims[0].kill()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    rows = read_metrics(tmp_path / "x" / "runs" / "cpg-0" / "metrics.jsonl")
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["time/total_timesteps"] >= 60_000


def _started(directory: Path) -> bool:
    """Whether a trial is under way, with a checkpoint."""
    return any(
        not (path.parent / "outcome.json").exists() and any(path.iterdir())
        for path in directory.glob("runs/*/checkpoints")
    )


def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"loss": {"loss": "tests.tune_configs.losses_to_compare:raises"}}))
    options = [*SMALL, "--losses", bad, "cpg", "--seeds", 1, "--episodes", 64, "--results", tmp_path, "--name", "x"]
    result = run(*options)
    assert result.returncode == 1, result.stderr
    assert "bad-0 failed: ZeroDivisionError: no such loss" in result.stdout
    summary = summary_of(tmp_path / "x")
    assert "no such loss" in summary["failed"]["bad-0"]
    assert list(summary["losses"]) == ["cpg"]
    assert "no such loss" in (tmp_path / "x" / "index.html").read_text()
    assert json.loads((tmp_path / "x" / "runs" / "cpg-0" / "made_by.json").read_text())["command"].endswith("--name x")

    again = run("--resume", tmp_path / "x")
    assert again.returncode == 1
    assert "1 of 2 trials to run" in again.stdout, "what failed is tried again"
    assert "--name x" in (tmp_path / "x" / "summary.md").read_text(), "the command is still the first one"


def test_ctrl_c_leaves_an_experiment_that_goes_on(tmp_path: Path) -> None:
    options = [*SMALL, "--losses", "cpg", "--seeds", 1, "--steps", 10_000_000, "--results", tmp_path, "--name", "x"]
    process = subprocess.Popen(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not read_metrics(tmp_path / "x" / "runs" / "cpg-0" / "metrics.jsonl"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert f"go on with --resume {tmp_path / 'x'}" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can carry it")
def test_a_trial_that_no_machine_can_carry_is_refused(tmp_path: Path) -> None:
    result = run(*SMALL, "--losses", "cpg", "--gpu-share", 1, "--results", tmp_path)
    assert result.returncode == 2
    assert "one trial needs 1 GPUs of 0" in result.stderr
    assert not list(tmp_path.iterdir())


@needs_sb3
def test_peers_are_trials_like_any_other(tmp_path: Path) -> None:
    options = [*SMALL, "--losses", "ppo", "--peers", "rllib", "sb3", "--seeds", 1, "--steps", 20_000]
    result = run(*options, "--results", tmp_path, "--name", "x")
    assert result.returncode == 0, result.stderr + result.stdout
    summary = summary_of(tmp_path / "x")
    assert set(summary["losses"]) == {"ppo", "rllib", "sb3"}
    for peer in ("rllib", "sb3"):
        figures = summary["losses"][peer]
        assert figures["steps"] == pytest.approx(2 * 16_384, rel=0.02), "two whole rollouts and their updates"
        assert figures["evaluation_mean"] > 15
        rows = read_metrics(tmp_path / "x" / "runs" / f"{peer}-0" / "metrics.jsonl")
        assert {"rollout/ep_rew_mean", "train/policy_gradient_loss", "time/fps"} <= set(rows[-1])
        assert rows[-1]["time/episodes"] == figures["episodes"] > 100
