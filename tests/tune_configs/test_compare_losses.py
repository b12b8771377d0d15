"""``python -m tune_configs.compare_losses`` as a user runs it, on real Ray Tune."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
import torch
from rich.console import Console

from actors.policy import Policy
from learner.keeping.checkpoint import has_checkpoint
from learner.keeping.metrics_log import read_metrics, read_rows
from learner.keeping.policies import find_policy
from learner.keeping.storage import Disk, open_storage
from learner.run.config import overlay
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory, json_bytes
from tests.learner.dataset.tallies import TALLY, write_tallies
from tests.serve.served import wait_for
from tune_configs.compare_losses import compare, main, read_command
from tune_configs.experiment import Experiment, Planned, configs_of, save

SMALL = ["--env", "CartPole-v1", "--evaluation-episodes", "5"]
PACED = ["--env", "tests.paced_environment:Paced-v0", "--evaluation-episodes", "2"]
FOR_EVER = 10_000_000
"""Steps of a trial that is not to end before something is done to it: hours."""
PATIENCE = 200.0
"""Seconds that a busy machine has for what takes a few."""
pytestmark = pytest.mark.timeout(600)
HAS_SB3 = importlib.util.find_spec("stable_baselines3") is not None
needs_sb3 = pytest.mark.skipif(not HAS_SB3, reason="needs the peers extra")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tune_configs.compare_losses", *map(str, arguments)]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=500, check=False, cwd=cwd)


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The command in this process: its exit status and what it prints. ``main`` would leave the shared cluster."""
    status = compare(read_command([*map(str, arguments)]), Console())
    return status, capsys.readouterr().out


def summary_of(directory: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary


@pytest.mark.usefixtures("ray_cluster", "s3")
def test_the_same_experiment_gives_the_same_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two losses, two seeds, twice: on two clusters, in whatever order the trials ended, on a disk and in a bucket.

    All of the second is in the bucket, none of it here; a resume with nothing to do writes the report again.
    """
    options = [*SMALL, "--losses", "cpg", "ppo", "--seeds", 2, "--episodes", 150, "--max-policy-lag", 0]
    status, out = compared(capsys, *options, "--results", tmp_path, "--name", "first")
    assert status == 0
    assert "cpg-1: done, 160 episodes" in out
    assert "4 of 4 trials to run" in out

    location, here = "s3://bucket/experiments", tmp_path / "here"
    here.mkdir()
    # A cluster of its own, by whose environment trials find the store.
    again = run(*options, "--results", location, "--name", "again", "--concurrent", 1, cwd=here)
    assert again.returncode == 0, again.stderr
    assert f"report: {location}/again/index.html" in again.stdout
    ended = [line.partition(":")[0] for line in again.stdout.splitlines() if ": done, " in line]
    assert ended == ["cpg-0", "ppo-0", "cpg-1", "ppo-1"], "one of each first, so that it is known what the others take"
    bucket = open_storage(f"{location}/again")
    written = bucket.read("summary.json")
    one, other = summary_of(tmp_path / "first"), json.loads(written)
    assert one.pop("times") != other.pop("times")
    assert one == other

    assert set(one["losses"]) == {"cpg", "ppo"}
    assert one["losses"]["cpg"]["seeds"] == 2
    assert one["losses"]["cpg"]["episodes"] == 320  # batches of 32: the fifth ends the budget of 150
    for label, figures in one["losses"].items():  # what its trials have logged
        logs = [tmp_path / "first" / "runs" / f"{label}-{seed}" / "metrics.jsonl" for seed in range(2)]
        ends = [read_metrics(log)[-1] for log in logs]
        best, last = ([end[f"rollout/{name}"] for end in ends] for name in ("best_ep_rew_mean", "ep_rew_mean"))
        assert figures["best_mean_return_of_each_seed"] == best
        assert figures["best_mean_return"] == pytest.approx(sum(best) / 2)
        assert figures["final_mean_return"] == pytest.approx(sum(last) / 2)
        assert figures["steps"] == sum(end["time/total_timesteps"] for end in ends)
    chances = one["probability_of_improvement"]
    assert chances["cpg"]["ppo"]["probability"] + chances["ppo"]["cpg"]["probability"] == pytest.approx(1)
    assert "50% with 2 runs" in " ".join(out.split())
    assert not one["failed"]
    assert not one["unfinished"]
    directory = tmp_path / "first"
    assert {path.name for path in directory.glob("*.png")} >= {"four_panels.png", "share_of_episodes.png"}
    assert "| loss | IQM |" in (directory / "summary.md").read_text()
    run_dir = directory / "runs" / "cpg-0"
    assert Policy.load(run_dir / "policy").spec.env_id == "CartPole-v1"
    assert list(run_dir.glob("events.out.tfevents.*"))

    assert bucket.read("four_panels.png").startswith(b"\x89PNG")
    for name in ("cpg-0", "ppo-0"):
        trial = bucket.within(f"runs/{name}")
        assert json.loads(trial.read("outcome.json"))["steps"] == read_rows(trial)[-1]["time/total_timesteps"]
        assert find_policy(str(trial)).spec.env_id == "CartPole-v1"
    bucket.remove("index.html")
    monkeypatch.chdir(here)
    status, out = compared(capsys, "--resume", f"{location}/again")
    assert status == 0
    assert "0 of 4 trials to run" in out
    assert b"cpg-0" in bucket.read("index.html")
    assert bucket.read("summary.json") == written
    assert not list(here.iterdir())


@pytest.mark.usefixtures("ray_cluster")
def test_losses_that_learn_from_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They fly to be scored, beside training and after it, and for nothing else."""
    data = write_tallies(tmp_path / "data", 300)
    network = {"hidden_sizes": [16], "normalize_observations": True}
    algorithm, rate = {"batch_size": 256, "gradient_steps": 40}, {"optimisation": {"learning_rate": 5e-3}}
    transformer = {"memory": "transformer", "memory_size": 16, "memory_heads": 2, "memory_window": 8}
    best = {"algorithm": {"name": "bc", **algorithm}, "network": network, "dataset": {"best_share": 0.1}, **rate}
    asked = {"algorithm": {"name": "dt", **algorithm}, "network": network | transformer, **rate}
    for name, settings in {"best": best, "asked": asked}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
    options = [
        "--dataset",
        data,
        "--env",
        TALLY,
        "--losses",
        tmp_path / "best.json",
        tmp_path / "asked.json",
        "--seeds",
        1,
    ]
    options += ["--updates", 4, "--evaluation-episodes", 20, "--results", tmp_path, "--name", "x"]
    status, out = compared(capsys, *options)
    assert status == 0, out
    assert "best-0: done, 4 updates, mean return 8.0" in out
    summary = summary_of(tmp_path / "x")
    assert summary["recorded"]["episodes"] == 300
    for label, figures in summary["losses"].items():
        rows = read_metrics(tmp_path / "x" / "runs" / f"{label}-0" / "metrics.jsonl")
        scores = [row["eval/mean_reward"] for row in rows if "eval/mean_reward" in row]
        assert len(scores) >= 2, "after the first update, and of the last policy"
        assert (figures["final_mean_return"], figures["best_mean_return"]) == (scores[-1], max(scores))
        assert figures["evaluation_mean"] > summary["recorded"]["returns"]["mean"] + 2
        assert (figures["episodes"], figures["steps"]) == (0, 4 * 40 * 256)
    assert {"losses.png", "return_by_updates.png"} <= {path.name for path in (tmp_path / "x").iterdir()}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a bad command gets."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.usefixtures("ray_cluster")
def test_two_processes_do_not_run_one_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = Experiment(losses=("cpg",), seeds=1, env="CartPole-v1", episodes=64)
    save(Planned(experiment, configs_of(experiment), "python -m something"), Disk(tmp_path))
    with filelock.FileLock(tmp_path / ".lock"):
        assert "another process runs the experiment" in refused(capsys, "--resume", tmp_path)


@pytest.mark.usefixtures("joined")
def test_an_experiment_outlives_its_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trial's learner, its actor, its own process, the command: each is killed once, in turn.

    Finished trials are kept, others go on from their checkpoints, and no update is lost or counted twice.
    """
    directory = tmp_path / "x"
    options = ["--losses", quick(tmp_path), "--seeds", 2, "--steps", FOR_EVER, "--results", tmp_path, "--name", "x"]
    process = subprocess.Popen(
        command(*PACED, *options, "--concurrent", 1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def wait_while_it_runs(condition: Callable[[], Any], what: str) -> Any:
        return wait_for(lambda: _still_running(process) and condition(), what, PATIENCE)

    def rows(trial: str = "cpg-0") -> list[dict[str, Any]]:
        return read_metrics(directory / "runs" / trial / "metrics.jsonl")

    def kill(title: str) -> None:
        (victim,) = wait_while_it_runs(lambda: len(found := processes(title)) == 1 and found, f"{title} is alone")
        victim.kill()
        victim.wait(PATIENCE)

    def kill_and_see_it_back(title: str, column: str) -> None:
        before = rows()[-1][column]
        kill(title)
        wait_while_it_runs(lambda: [row for row in rows()[-1:] if row[column] > before], f"{title} is back")

    def end_soon(trial: str) -> int:
        """Has it do little more once it goes on, by the budget in its directory; answers its last step."""
        run = RunDirectory(directory / "runs" / trial)
        steps = int(rows(trial)[-1]["time/total_timesteps"]) + 500
        config = overlay(run.config(), {"stop": {"total_timesteps": steps}}, "test")
        run.storage.write("config.json", json_bytes(config.to_dict()))
        return steps

    wait_while_it_runs(rows, "the first trial is under way")
    kill_and_see_it_back("ray::LearnerActor", "rollout/learner_restarts")
    kill_and_see_it_back("ray::RolloutActor", "rollout/actor_restarts")
    ends = {"cpg-0": end_soon("cpg-0")}
    kill("ray::ImplicitFunc")
    wait_while_it_runs((directory / "runs/cpg-0/outcome.json").exists, "another process leads the trial to its end")
    second = RunDirectory(directory / "runs" / "cpg-1")
    wait_while_it_runs(lambda: rows("cpg-1") and has_checkpoint(second.checkpoints), "the second trial is under way")
    process.kill()
    process.communicate()
    wait_for(lambda: not processes("ray::ImplicitFunc"), "the trial ends with its command", PATIENCE)
    ends["cpg-1"] = end_soon("cpg-1")
    kept = {path: path.stat().st_mtime_ns for path in directory.glob("runs/*/outcome.json")}
    assert [path.parent.name for path in kept] == ["cpg-0"]

    status, out = compared(capsys, "--resume", directory)
    assert status == 0, out
    assert "1 of 2 trials to run" in out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for trial, end in ends.items():
        log = rows(trial)
        assert json.loads((directory / "runs" / trial / "made_by.json").read_text())["resumed"]
        assert [row["train/n_updates"] for row in log] == list(range(1, len(log) + 1)), trial
        outcome = json.loads((directory / "runs" / trial / "outcome.json").read_text())
        assert outcome["steps"] == log[-1]["time/total_timesteps"] >= end
    assert not summary_of(directory)["unfinished"]


def quick(directory: Path) -> Path:
    """A file of the preset cpg: many updates, as it hardly learns to fly long, of which going back loses few."""
    changes = {
        "rollout": {"n_envs": 4},
        "optimisation": {"learning_rate": 1e-6},
        "checkpoint": {"checkpoint_seconds": 0.1},
    }
    path = directory / "cpg.json"
    path.write_text(json.dumps(overlay(preset("cpg"), changes, "quick").to_dict()))
    return path


def _still_running(process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, process.communicate()
    return True


def processes(title: str) -> list[psutil.Process]:
    """Processes of the shared cluster by the name that Ray gives them."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(one.cmdline()).startswith(title):
                found.append(one)
    return found


@pytest.fixture(scope="module")
def one_fails(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A comparison of which one trial fails: its directory, exit status and what was printed."""
    results = tmp_path_factory.mktemp("results")
    bad = results / "bad.json"
    bad.write_text(json.dumps({"algorithm": {"name": "tests.tune_configs.losses_to_compare:Raises"}}))
    peers = ["--peers", "sb3-dqn", "rllib-dqn"] if HAS_SB3 else []
    options = [*SMALL, "--losses", bad, "dqn", *peers, "--seeds", 1, "--steps", 400]
    words = [*map(str, options), "--results", str(results), "--name", "x", "--concurrent", "1"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compare_losses", *words])
        status = compare(read_command(words), Console(file=said))
    return results / "x", status, said.getvalue()


@pytest.mark.usefixtures("joined")
def test_a_trial_that_fails_is_told_and_the_others_go_on(one_fails: tuple[Path, int, str]) -> None:
    directory, status, out = one_fails
    assert status == 1, out
    assert "bad-0 failed: ZeroDivisionError: no such loss" in out
    summary = summary_of(directory)
    assert "no such loss" in summary["failed"]["bad-0"]
    assert "dqn" in summary["losses"]
    assert "bad" not in summary["losses"]
    assert "no such loss" in (directory / "index.html").read_text()
    assert json.loads((directory / "runs" / "dqn-0" / "made_by.json").read_text())["command"].endswith("--concurrent 1")

    again = run("--resume", directory)
    assert again.returncode == 1, again.stderr
    total = len(list((directory / "runs").iterdir()))
    assert f"1 of {total} trials to run" in again.stdout, "what failed is tried again"
    assert "--name x --concurrent 1" in (directory / "summary.md").read_text(), "the command is still the first one"


@pytest.mark.slow
def test_ctrl_c_leaves_an_experiment_that_goes_on(tmp_path: Path) -> None:
    options = [*PACED, "--losses", "cpg", "--seeds", 1, "--steps", FOR_EVER, "--results", tmp_path, "--name", "x"]
    process = subprocess.Popen(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "x" / "runs" / "cpg-0" / "metrics.jsonl"
    wait_for(lambda: _still_running(process) and read_metrics(log), "the trial is under way", PATIENCE)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].endswith(f"ended by SIGINT; go on with --resume {tmp_path / 'x'}"), err
    assert "0 of 1 trials" not in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can carry it")
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_no_machine_can_carry_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *SMALL, "--losses", "cpg", "--gpu-share", 1, "--results", tmp_path)
    assert "one trial needs 1 GPUs of 0" in said
    assert not list(tmp_path.iterdir())


@needs_sb3
@pytest.mark.usefixtures("ray_cluster")
def test_peers_are_trials_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*SMALL, "--losses", "ppo", "--peers", "rllib", "sb3", "--seeds", 1, "--steps", 20_000]
    status, out = compared(capsys, *options, "--results", tmp_path, "--name", "x", "--concurrent", 1)
    assert status == 0, out
    summary = summary_of(tmp_path / "x")
    assert set(summary["losses"]) == {"ppo", "rllib", "sb3"}
    for peer in ("rllib", "sb3"):
        figures = summary["losses"][peer]
        assert figures["steps"] == pytest.approx(2 * 16_384, rel=0.02), "two whole rollouts and their updates"
        assert figures["evaluation_mean"] > 15
        rows = read_metrics(tmp_path / "x" / "runs" / f"{peer}-0" / "metrics.jsonl")
        assert {"rollout/ep_rew_mean", "train/policy_gradient_loss", "time/fps"} <= set(rows[-1])
        assert rows[-1]["time/episodes"] == figures["episodes"] > 100


@needs_sb3
def test_peers_that_learn_from_a_memory_are_trials_too(one_fails: tuple[Path, int, str]) -> None:
    directory, _, out = one_fails
    summary = summary_of(directory)
    assert set(summary["failed"]) == {"bad-0"}, out
    assert set(summary["losses"]) == {"dqn", "rllib-dqn", "sb3-dqn"}
    for peer in ("rllib-dqn", "sb3-dqn"):
        figures = summary["losses"][peer]
        assert figures["steps"] == 400
        assert figures["evaluation_mean"] > 5
        rows = read_metrics(directory / "runs" / f"{peer}-0" / "metrics.jsonl")
        assert [row["time/total_timesteps"] for row in rows] == [200, 400]
        assert rows[-1]["time/episodes"] == figures["episodes"] > 4
        assert rows[-1]["train/loss"] > 0
        policy = Policy.load(directory / "runs" / f"{peer}-0" / "policy")
        assert policy.weights["epsilon"] == pytest.approx(0.1), "it has explored its share of the budget"


@needs_sb3
@pytest.mark.usefixtures("ray_cluster")
def test_a_peer_flies_continuous_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--env", "Pendulum-v1", "--evaluation-episodes", 3, "--losses", "sac", "--peers", "sb3-sac"]
    options += ["--seeds", 1, "--steps", 400, "--results", tmp_path, "--name", "x", "--concurrent", 1]
    status, out = compared(capsys, *options)
    assert status == 0, out
    figures = summary_of(tmp_path / "x")["losses"]["sb3-sac"]
    assert figures["steps"] == 400
    assert -2000 < figures["evaluation_mean"] < 0
    assert Policy.load(tmp_path / "x" / "runs" / "sb3-sac-0" / "policy").spec.distribution == "squashed_gaussian"
