"""What is said of a set of episode returns, and how they are flown."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from rich.console import Console

from actors.environments import describe
from actors.errors import EnvironmentFault, UserError
from actors.evaluation import fly_episodes
from actors.policy import Policy
from learner.evaluate import EvaluateCommand, main
from learner.run.evaluation import evaluate, report, summarise
from tests.actors.examples import policy_for, stubborn_policy
from tests.actors.fake_environments import RAISE

FAKE = "tests.actors.fake_environments"


def test_eight_episodes_by_hand() -> None:
    score = summarise(np.array([50.0, -100, 40, 10, 30, 20, 100, 300]), reward_threshold=40)
    assert score["mean_reward"] == 56.25
    assert score["std_reward"] == pytest.approx(math.sqrt(11273.4375))
    assert score["mean_minus_std"] == pytest.approx(56.25 - score["std_reward"])
    assert score["median_reward"] == 35
    assert (score["worst_reward"], score["best_reward"]) == (-100, 300)
    assert (score["reward_threshold"], score["share_over_threshold"]) == (40, 0.5)  # 40 itself counts


def test_standard_deviation_is_the_populations() -> None:
    """As Stable-Baselines3 and the course's leaderboard count it."""
    assert summarise(np.array([1.0, 3.0]), None)["std_reward"] == 1


def test_no_threshold() -> None:
    score = summarise(np.array([1.0, 2, 3]), None)
    assert score["reward_threshold"] is score["share_over_threshold"] is None


def test_crashes_are_not_trimmed_away() -> None:
    """A quarter of crashes, which the mean of the middle half would not see."""
    score = summarise(np.array([260.0] * 75 + [-100.0] * 25), reward_threshold=200)
    assert score["mean_reward"] == 170
    assert score["median_reward"] == 260
    assert (score["worst_reward"], score["share_over_threshold"]) == (-100, 0.75)


@pytest.mark.parametrize("returns", [[7.0], [7.0] * 20], ids=["one episode", "all the same"])
def test_nothing_to_be_uncertain_about(returns: list[float]) -> None:
    score = summarise(np.array(returns), reward_threshold=200)
    assert score["mean_reward"] == score["median_reward"] == score["worst_reward"] == 7
    assert score["std_reward"] == score["share_over_threshold"] == 0


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "LunarLanderContinuous-v3"])
def test_the_report_says_all_of_it_in_80_columns(env_id: str) -> None:
    flown = {"is_deterministic": True, "n_eval_episodes": 100, "env_id": env_id, "first_seed": 10_000, "n_truncated": 3}
    score = summarise(np.array([260.0] * 75 + [-100.0] * 25), reward_threshold=200)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(report({**flown, **score}))
    text = console.export_text()
    assert f"100 greedy episodes of {env_id} (Gymnasium), seeds from 10000" in text.splitlines()[0]
    for label, value in [
        ("mean ± std", "170.0 ± 155.9"),
        ("mean − std", "14.1"),
        ("median", "260.0"),
        ("worst, best", "-100.0, 260.0"),
        ("cut by a time limit", "3 of 100"),
        ("episodes at 200 or more", "75%"),
    ]:
        assert any(label in line and value in line for line in text.splitlines()), label


def test_it_is_the_same_every_time() -> None:
    returns = np.random.default_rng(0).normal(size=30)
    assert summarise(returns, 0.0) == summarise(returns.copy(), 0.0)


def test_a_module_that_only_the_policys_file_names_is_not_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = policy_for("CartPole-v1")
    Policy(dataclasses.replace(policy.spec, env_id="antigravity:CartPole-v1"), policy.weights).save(tmp_path)
    for modules in ([], ["--module", "this"]):
        with pytest.raises(SystemExit) as end:
            main([str(tmp_path), "--episodes", "1", *modules])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "add --module antigravity if you trust it" in line
    assert "antigravity" not in sys.modules


@pytest.mark.usefixtures("ray_cluster")
def test_every_seed_is_flown_once_however_many_there_are() -> None:
    """More than one process flies at a time: the last part is a short one."""
    spec = describe("CartPole-v1").policy_spec(hidden_sizes=())
    leaning = np.array([0, 0, 1, 0], np.float32)
    policy = Policy(spec, {"w0": np.stack([-leaning, leaning], axis=1), "b0": np.zeros(2, np.float32)})
    score = evaluate(policy, 120, seed=10_000)
    returns, lengths, cut = fly_episodes(policy, range(10_000, 10_120))
    assert score.items() >= summarise(returns, 475.0).items()
    assert (score["n_eval_episodes"], score["first_seed"]) == (120, 10_000)
    assert score["mean_ep_length"] == lengths.mean()
    assert score["n_truncated"] == cut.sum()
    assert evaluate(policy, 51, seed=10_000)["worst_reward"] == returns[:51].min()
    assert evaluate(policy_for("CartPole-v1"), 51, 10_000, deterministic=False)["std_reward"] > 0


@pytest.mark.usefixtures("ray_cluster")
def test_where_processes_that_are_kept_have_all_processors() -> None:
    class Kept:
        def is_there(self) -> bool:
            return True

    kept: Any = ray.remote(Kept).options(num_cpus=ray.cluster_resources()["CPU"]).remote()
    try:
        assert ray.get(kept.is_there.remote())
        assert evaluate(policy_for("CartPole-v1"), 4, seed=1)["n_eval_episodes"] == 4
    finally:
        ray.kill(kept)


@pytest.mark.usefixtures("ray_cluster")
def test_a_policy_that_ends_no_episode_is_cut_and_the_score_says_so() -> None:
    score = evaluate(stubborn_policy(f"{FAKE}:Endless-v0", 0), 3, seed=0, max_episode_steps=40)
    assert (score["n_truncated"], score["mean_ep_length"]) == (3, 40)
    table = report(score)
    cells = [str(cell) for column in table.columns for cell in column.cells]
    assert "cut by a time limit" in cells
    assert "3 of 3" in cells


@pytest.mark.usefixtures("ray_cluster")
def test_an_environment_that_raises_is_one_line() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        evaluate(stubborn_policy(f"{FAKE}:Obedient-v0", RAISE), 3, seed=0)
    assert str(caught.value) == f"{FAKE}:Obedient-v0: step raised RuntimeError: the lander is on fire"
    assert "fake_environments/wrong.py" in caught.value.details


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 2**31 - 50}, "seed must be zero or more and at most 2147483548 for 100 episodes, not 2147483598"),
        ({"seed": -1}, "seed must be zero or more"),
        ({"max_episode_steps": 0}, "max_episode_steps must be 1 or more, not 0"),
    ],
)
def test_impossible_commands_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateCommand("runs/first", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "how"), [([], "greedy"), (["--deterministic"], "greedy"), (["--no-deterministic"], "sampled")]
)
def test_how_it_acts_is_a_flag(ray_cluster: None, tmp_path: Path, capsys: Any, flags: list[str], how: str) -> None:
    policy_for("CartPole-v1").save(tmp_path)
    main([str(tmp_path), "--episodes", "2", *flags])
    assert f"2 {how} episodes of CartPole-v1" in capsys.readouterr().out


def test_returns_are_asked_for_one_after_another(ray_cluster: None, tmp_path: Path, capsys: Any) -> None:
    policy_for("CartPole-v1", memory="transformer", target_return=100.0).save(tmp_path)
    main([str(tmp_path), "--episodes", "3", "--target-return", "20", "200"])
    said = capsys.readouterr().out
    assert "3 sampled episodes of CartPole-v1" in said
    scores = json.loads((tmp_path / "targets.json").read_text())
    assert [score["target_return"] for score in scores] == [20, 200]
    assert (tmp_path / "targets.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "evaluation.json").exists()


def test_who_acts_for_no_return_is_asked_for_none(tmp_path: Path, capsys: Any) -> None:
    policy_for("CartPole-v1").save(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), "--target-return", "20"])
    assert end.value.code == 2
    assert "acts for no return in particular" in capsys.readouterr().err
