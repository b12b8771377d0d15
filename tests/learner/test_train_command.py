"""``python -m learner.train`` and ``python -m learner.evaluate`` as a user runs them: processes, files, exit codes."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v2
import pytest
import ray
from torch import Tensor

from actors.errors import UserError
from actors.policy import Policy
from learner.algorithms.ppo import PPO
from learner.algorithms.returns import Trajectories
from learner.keeping.metrics_log import read_metrics
from learner.run.run_directory import RunDirectory
from learner.train import main, read_command

SHORT = ["--env", "CartPole-v1", "--n-envs", "8", "--n-steps", "64", "--no-video", "--evaluate-episodes", "5"]
SHORT += ["--actors", "1", "--cpus-per-actor", "0"]  # one that is kept for the next run is in nobody's way


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def status(*arguments: object) -> object:
    """The exit status of a training command that is run here, beside processes that are kept: no new one imports."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the handlers of the log that a command brings."""
    monkeypatch.setattr(logging.getLogger("touchdown"), "handlers", [])


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line that a bad command gets, and nothing has started."""
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    assert status(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    return said


def own_advantage(steps: Trajectories, options: PPO) -> tuple[Tensor, Tensor]:
    """A user's: the rewards less λ, which are the critic's targets too."""
    advantages = steps.rewards - options.gae_lambda
    return advantages, advantages


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (["--advantage", "critic", "--gae-lambda", "0.9"], "--gae-lambda: changes nothing"),
        (["--preset", "dqn", "--priority-beta", "0.5", "--priority-alpha", "0.7"], "--priority-alpha, --priority-beta"),
        (["--gae-lambda", "0.9"], ""),
        (["--preset", "dqn", "--prioritized", "--priority-beta", "0.5"], ""),
        (["--preset", "vpg"], ""),
        (["--batch-size", "None", "--n-epochs", "2"], ""),
        (["--advantage", "tests.learner.test_train_command:own_advantage", "--gae-lambda", "0.9"], ""),
    ],
    ids=" ".join,
)
def test_options_that_change_nothing_are_named(caplog: pytest.LogCaptureFixture, options: list[str], idle: str) -> None:
    read_command(options)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(idle)
    assert idle in "".join(said)


def wait_for_updates(process: subprocess.Popen[str], run_dir: Path, updates: int) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(run_dir / "metrics.jsonl")) < updates:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("joined", "kept_processes", "own_log")
def test_train_resume_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    trained = run("learner.train", *SHORT, "--run-dir", run_dir, "--total-timesteps", 2000)
    assert trained.returncode == 0, trained.stderr
    assert "budget used up" in trained.stdout
    assert "flying CartPole-v1 on EnvPool" in trained.stderr
    assert json.loads((run_dir / "evaluation.json").read_text())["n_eval_episodes"] == 5
    made_by = json.loads((run_dir / "made_by.json").read_text())
    assert made_by["preset"] == "ppo"
    assert "--total-timesteps 2000" in made_by["command"]
    assert json.loads((run_dir / "result.json").read_text())["reason"] == "budget used up"
    before = Policy.load(run_dir / "policy").spec.version

    capsys.readouterr()
    assert status("--resume", run_dir) == 0
    again = capsys.readouterr()
    assert again.out.startswith(f"{run_dir} has ended (budget used up, 2,")
    assert (again.out + again.err).count("\n") == 1
    (run_dir / "evaluation.json").unlink()  # it was lost as it was evaluated
    assert status("--resume", run_dir, "--evaluate-episodes", 3, "--no-video") == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["n_eval_episodes"] == 3

    longer = ("--total-timesteps", 3000, "--target-return", 5000)
    assert status("--resume", run_dir, *longer, "--no-video") == 3
    said = capsys.readouterr().out
    assert "budget used up, short of the target return 5000: 3," in said
    assert "policy: " in said, "what there is is scored and named all the same"
    assert json.loads((run_dir / "result.json").read_text())["target_reached"] is False
    assert run("learner.train", "--resume", run_dir).returncode == 3
    assert status("--resume", run_dir, "--missed-status", 0) == 0
    assert Policy.load(run_dir / "policy").spec.version > before

    video = tmp_path / "flight.mp4"
    evaluated = run("learner.evaluate", run_dir, "--episodes", 8, "--no-deterministic", "--video", video)
    assert evaluated.returncode == 0, evaluated.stderr
    score = json.loads((run_dir / "evaluation.json").read_text())
    assert (score["n_eval_episodes"], score["is_deterministic"]) == (8, False)
    assert sum(1 for _ in imageio.v2.get_reader(video)) > 10


@pytest.mark.usefixtures("joined", "kept_processes", "own_log")
def test_resume_after_the_driver_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learner.train", *SHORT, "--run-dir", str(tmp_path / "run")]
    command += ["--total-timesteps", "50000000", "--checkpoint-seconds", "0.2", "--eval-every", "None"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_updates(process, tmp_path / "run", 10)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["time/total_timesteps"]
    arguments = ["--resume", tmp_path / "run", "--total-timesteps", int(done) + 1500, "--no-video"]
    assert status(*arguments, "--evaluate-episodes", 0) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["time/total_timesteps"] >= done + 1500


@pytest.mark.usefixtures("joined", "kept_processes", "own_log")
def test_a_job_that_is_started_again_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that was killed before its first checkpoint, and one that is done."""
    run_dir = tmp_path / "run"
    command = [*SHORT, "--run-dir", run_dir, "--go-on", "--evaluate-episodes", "0", "--total-timesteps"]
    config = read_command([str(word) for word in (*command, 2000)]).options
    RunDirectory(run_dir).create(config, "ppo")
    assert status(*command, 2000) == 0
    assert f"{run_dir} holds no checkpoint yet: beginning again" in capsys.readouterr().err
    assert status(*command, 4000) == 0
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["time/total_timesteps"] >= 4000
    with pytest.raises(UserError, match="--go-on needs --run-dir"):
        read_command(["--go-on"])
    with pytest.raises(UserError, match="can change, not env"):
        read_command(["--run-dir", str(run_dir), "--go-on", "--env", "Acrobot-v1"])
    assert read_command(["--run-dir", str(run_dir), "--go-on", "--env", "CartPole"]).options.env == config.env
    assert read_command(["--run-dir", str(tmp_path / "other"), "--go-on"]).resume is None


def test_the_same_command_goes_on_whatever_its_file_and_its_wrappers(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"fleet": {"actors": "auto"}, "algorithm": {"gamma": 0.9}}))
    words = [
        "--config",
        str(tmp_path / "mine.json"),
        "--actors",
        "2",
        "--gamma",
        "0.8",
        "--wrappers",
        "TimeAwareObservation",
    ]
    words += ["--env-kwargs", "gravity=-9.0", "--run-dir", str(tmp_path / "run"), "--go-on"]
    first = read_command(words)
    assert first.resume is None
    RunDirectory(tmp_path / "run").create(first.options, "ppo")
    again = read_command([*words, "--total-timesteps", "5000"])
    assert again.resume == str(tmp_path / "run")
    assert dataclasses.replace(again.options, stop=first.options.stop) == first.options
    assert again.options.stop.total_timesteps == 5000


def test_a_file_changes_no_run_that_goes_on(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").create(read_command([]).options, "ppo")
    (tmp_path / "mine.json").write_text(json.dumps({"algorithm": {"name": "policy_gradient"}, "seed": 3}))
    with pytest.raises(UserError, match="can change, not seed, algorithm"):
        read_command(["--resume", str(tmp_path / "run"), "--config", str(tmp_path / "mine.json")])


def test_a_run_goes_on_with_other_options_that_change_nothing_of_how_it_learns(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").create(read_command(["--preset", "dqn"]).options, "dqn")
    others = ["--checkpoint-memory", "--eval-every", "7000", "--device", "cpu", "--max-seconds", "60"]
    options = read_command(["--resume", str(tmp_path / "run"), *others]).options
    assert options.checkpoint.checkpoint_memory
    assert (options.evaluation.eval_every, options.placement.device, options.stop.max_seconds) == (7_000, "cpu", 60)


def test_underscores_are_dashes(tmp_path: Path) -> None:
    words = ["--env", "MountainCar-v0", "--no_tuned", "--run_dir", str(tmp_path), "--go_on", "--total_timesteps=7"]
    command = read_command(words)
    assert (command.run_dir, command.tuned, command.go_on) == (str(tmp_path), False, True)
    assert (command.options.stop.total_timesteps, command.options.network.normalize_observations) == (7, False)


def test_arguments_and_wrappers_join_the_environments_name(tmp_path: Path) -> None:
    words = [
        "--env",
        "LunarLander-v3",
        "--env-kwargs",
        "enable_wind=True",
        "wind_power=15",
        "--wrappers",
        "TimeAwareObservation",
    ]
    config = read_command(words).options
    assert config.env == "LunarLander-v3(enable_wind=True, wind_power=15) | TimeAwareObservation"
    RunDirectory(tmp_path / "run").create(config, "ppo")
    assert read_command(["--resume", str(tmp_path / "run")]).options == config
    (tmp_path / "mine.json").write_text(json.dumps({"env": config.env}))
    assert read_command(["--config", str(tmp_path / "mine.json")]).options.env == config.env


@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "pp"], "unknown preset 'pp'; did you mean ppo?"),
        (["--missed-status", "256"], "missed_status must lie between 0 and 255, not 256"),
        (["--run-dir", "bad\udcff"], r"'bad\udcff' is no text here: give names in UTF-8"),
        (["--env", "LunarLandr-v3"], "unknown environment 'LunarLandr-v3'; did you mean LunarLander-v3"),
        (["--env", "CarRacing-v3", "--network", "natur"], "unknown network 'natur'; did you mean nature?"),
        (["--network", "small"], "convolutions are for pictures, and observations are 8 numbers: network mlp"),
        (["--env-kwargs", "wind"], "env_kwargs takes name=value, such as enable_wind=True, not 'wind'"),
        (["--env-kwargs", "wnd=1"], "LunarLander.__init__() got an unexpected keyword argument 'wnd'"),
        (["--wrappers", "TimeLimits"], "unknown wrapper 'TimeLimits'; did you mean TimeLimit?"),
        (["--wrappers", "Clip Reward"], "is no environment"),
        (["--learning-rat", "1"], "did you mean --learning-rate?"),
        (["--learning-rate", "fast"], "--learning-rate: could not convert string to float: 'fast'"),
        (["--gamma", "3"], "gamma must lie between 0 and 1, not 3.0"),
        (["--backend", "isaac"], "invalid choice 'isaac'"),
        (["--backend", "envpool", "--env", "tests.learner.broken_environment:Broken-v0"], "EnvPool does not have it"),
        (["--algorithm", "pppo"], "unknown algorithm 'pppo'; did you mean ppo?"),
        (["--loss", "ppo"], "did you mean --algorithm?"),
        (["--resume", "no/such/run"], "no run in no/such/run"),
        (["--resume", ""], "--init-from take a directory; an empty name was given"),
        (["--learners", "2", "--gpu-share", "0.5"], "several learners need a GPU each"),
        (["--config", "no/such/file"], "cannot read no/such/file"),
        (["--max-policy-lag", "3"], "V-trace (preset impala) corrects for any"),
        (["--total-timesteps", "None"], "a run needs an end"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2_before_ray_starts(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = [] if "--resume" in arguments else ["--run-dir", tmp_path / "run"]
    assert said in refused(capsys, monkeypatch, *arguments, *where)
    assert not (tmp_path / "run").exists()


def test_a_bad_request_of_a_real_process() -> None:
    result = run("learner.train", "--gamma", "3")
    assert result.returncode == 2
    assert result.stderr == "python -m learner.train: error: gamma must lie between 0 and 1, not 3.0\n"


@pytest.mark.usefixtures("own_log")
def test_resume_refuses_another_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    RunDirectory(tmp_path / "run").create(read_command(SHORT).options, "ppo")
    said = refused(capsys, monkeypatch, "--resume", tmp_path / "run", "--gamma", "0.5")
    assert "can change, not algorithm" in said


@pytest.mark.usefixtures("own_log")
def test_help_teaches_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") == 0
    said = capsys.readouterr().out
    for option in ("--preset", "--resume", "--n-steps", "--max-policy-lag", "--gae-lambda", "--target-return"):
        assert option in said
