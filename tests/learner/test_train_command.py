"""``python -m learner.train`` and ``python -m learner.evaluate`` as a user runs them: processes, files, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v2
import pytest

from actors.errors import UserError
from actors.policy import Policy
from learner.metrics_log import read_metrics
from learner.run_directory import RunDirectory
from learner.train import read_command

SHORT = ["--env", "CartPole-v1", "--n-envs", "8", "--n-steps", "64", "--no-video", "--evaluate-episodes", "5"]


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def wait_for_updates(process: subprocess.Popen[str], run_dir: Path, updates: int) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(run_dir / "metrics.jsonl")) < updates:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_train_resume_and_evaluate(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    trained = run("learner.train", *SHORT, "--run-dir", run_dir, "--total-timesteps", 4000)
    assert trained.returncode == 0, trained.stderr
    assert "budget used up" in trained.stdout
    assert "flying CartPole-v1 on EnvPool" in trained.stderr
    assert json.loads((run_dir / "evaluation.json").read_text())["n_eval_episodes"] == 5
    made_by = json.loads((run_dir / "made_by.json").read_text())
    assert made_by["preset"] == "ppo"
    assert "--total-timesteps 4000" in made_by["command"]
    before = Policy.load(run_dir / "policy").spec.version

    resumed = run("learner.train", "--resume", run_dir, "--total-timesteps", 8000, "--no-video")
    assert resumed.returncode == 0, resumed.stderr
    assert Policy.load(run_dir / "policy").spec.version > before

    video = tmp_path / "flight.mp4"
    evaluated = run("learner.evaluate", run_dir, "--episodes", 8, "--no-deterministic", "--video", video)
    assert evaluated.returncode == 0, evaluated.stderr
    score = json.loads((run_dir / "evaluation.json").read_text())
    assert (score["n_eval_episodes"], score["is_deterministic"]) == (8, False)
    assert sum(1 for _ in imageio.v2.get_reader(video)) > 10


def test_ctrl_c_checkpoints_and_exits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learner.train", *SHORT, "--run-dir", str(tmp_path / "run")]
    command += ["--total-timesteps", "50000000", "--evaluate-episodes", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for_updates(process, tmp_path / "run", 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "SIGINT received" in out
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert Policy.load(tmp_path / "run" / "policy").spec.version == rows[-1]["train/n_updates"]


def test_resume_after_the_driver_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learner.train", *SHORT, "--run-dir", str(tmp_path / "run")]
    command += ["--total-timesteps", "50000000", "--checkpoint-seconds", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_updates(process, tmp_path / "run", 10)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["time/total_timesteps"]
    arguments = ["--resume", tmp_path / "run", "--total-timesteps", int(done) + 3000, "--no-video"]
    resumed = run("learner.train", *arguments, "--evaluate-episodes", 0)
    assert resumed.returncode == 0, resumed.stderr
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["time/total_timesteps"] >= done + 3000


def test_a_job_that_is_started_again_goes_on(tmp_path: Path) -> None:
    """Also one that was killed before its first checkpoint, and one that is done."""
    run_dir = tmp_path / "run"
    command = [*SHORT, "--run-dir", run_dir, "--go-on", "--evaluate-episodes", "0", "--total-timesteps"]
    config = read_command([str(word) for word in (*command, 4000)]).options
    RunDirectory(run_dir).create(config, "ppo")
    first = run("learner.train", *command, 4000)
    assert first.returncode == 0, first.stderr
    assert f"{run_dir} holds no checkpoint yet: beginning again" in first.stderr
    second = run("learner.train", *command, 8000)
    assert second.returncode == 0, second.stderr
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["time/total_timesteps"] >= 8000
    with pytest.raises(UserError, match="--go-on needs --run-dir"):
        read_command(["--go-on"])
    with pytest.raises(UserError, match="only stop options can change, not env"):
        read_command(["--run-dir", str(run_dir), "--go-on", "--env", "Acrobot-v1"])
    assert read_command(["--run-dir", str(tmp_path / "other"), "--go-on"]).resume is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "pp"], "unknown preset 'pp'; did you mean ppo?"),
        (["--env", "LunarLandr-v3"], "unknown environment 'LunarLandr-v3'; did you mean LunarLander-v3"),
        (["--env", "FrozenLake-v1"], "supported are Box observations"),
        (["--learning-rat", "1"], "did you mean --learning-rate?"),
        (["--learning-rate", "fast"], "--learning-rate: could not convert string to float: 'fast'"),
        (["--gamma", "3"], "gamma must lie between 0 and 1, not 3.0"),
        (["--backend", "isaac"], "invalid choice 'isaac'"),
        (["--backend", "envpool", "--env", "tests.learner.broken_environment:Broken-v0"], "EnvPool does not have it"),
        (["--loss", "pppo"], "unknown loss 'pppo'; did you mean ppo?"),
        (["--resume", "no/such/run"], "no run in no/such/run"),
        (["--resume", ""], "--resume and --run-dir take a directory; an empty name was given"),
        (["--learners", "2", "--gpu-share", "0.5"], "several learners need a GPU each"),
        (["--config", "no/such/file"], "cannot read no/such/file"),
        (["--max-policy-lag", "3"], "needs advantage 'vtrace'"),
        (["--total-timesteps", "None"], "a run needs an end"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2_before_ray_starts(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    result = run("learner.train", *arguments, *([] if "--resume" in arguments else ["--run-dir", tmp_path / "run"]))
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_resume_refuses_another_configuration(tmp_path: Path) -> None:
    run("learner.train", *SHORT, "--run-dir", tmp_path / "run", "--total-timesteps", 1000, "--evaluate-episodes", 0)
    result = run("learner.train", "--resume", tmp_path / "run", "--gamma", "0.5")
    assert result.returncode == 2
    assert "only stop options can change, not loss" in result.stderr


def test_help_teaches_every_option() -> None:
    result = run("learner.train", "--help")
    assert result.returncode == 0
    for option in ("--preset", "--resume", "--n-steps", "--max-policy-lag", "--gae-lambda", "--target-return"):
        assert option in result.stdout
