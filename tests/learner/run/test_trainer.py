"""Runs on real Ray processes learn, repeat to the bit, and are judged by the policy that they end with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.policy import Policy
from learner.keeping.checkpoint import load_checkpoint
from learner.keeping.metrics_log import read_metrics
from learner.keeping.policies import find_policy
from learner.run.callback import Callback
from learner.run.config import overlay
from learner.run.evaluation import evaluate
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from tests.actors.examples import stubborn_policy
from tests.learner.run.short_runs import CARTPOLE, Act, cartpole, check_consistent, equal_weights, wait_until

pytestmark = pytest.mark.usefixtures("kept_processes")


def test_ppo_learns_cartpole_to_450_and_hands_over_the_policy_that_did(tmp_path: Path) -> None:
    config = cartpole(
        stop={"target_return": 450.0, "window": 20, "total_timesteps": 400_000}, evaluation={"eval_episodes": 30}
    )
    result = Trainer(config, tmp_path / "run").run()
    assert result.reason == "target return 450 reached"
    assert result.target_reached
    rows = check_consistent(tmp_path / "run", result.counters)
    assert max(row["rollout/policy_lag"] for row in rows) <= 1
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    kept = json.loads((tmp_path / "run" / "best" / "evaluation.json").read_text())
    *_, last = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "eval/mean_reward" in row]
    assert last["eval/mean_reward"] == kept["mean_reward"] >= 450
    assert last["eval/episodes"] == kept["n_eval_episodes"] == 30
    for policy in (result.policy, find_policy(tmp_path / "run"), find_policy(tmp_path / "run" / "best")):
        assert policy.spec.version == kept["policy_version"] == last["eval/policy_version"]
    flown = evaluate(result.policy, 30, kept["first_seed"])
    assert flown["mean_reward"] == pytest.approx(kept["mean_reward"])
    for policy in (find_policy(tmp_path / "run"), find_policy(tmp_path / "run" / "best")):
        assert equal_weights(policy, result.policy)
    state, _ = load_checkpoint(RunDirectory(tmp_path / "run").checkpoints)
    assert state["version"] >= kept["policy_version"]


def test_a_run_whose_last_policy_reaches_the_target_has_reached_it(tmp_path: Path) -> None:
    stop = {"target_return": 9.0, "window": 10_000, "total_timesteps": 2_000}  # training alone would never say so
    result = Trainer(cartpole(stop=stop), tmp_path / "run").run()
    assert result.reason == "target return 9 reached"
    assert (
        result.policy.spec.version == json.loads((tmp_path / "run/best/evaluation.json").read_text())["policy_version"]
    )


def test_a_policy_that_is_made_to_be_sampled_is_scored_so(tmp_path: Path) -> None:
    config = cartpole(
        stop={"target_return": 9.0, "window": 10_000, "total_timesteps": 2_000},
        evaluation={"sampled": True, "eval_episodes": 10},
    )
    policy = Trainer(config, tmp_path / "run").run().policy
    kept = json.loads((tmp_path / "run" / "best" / "evaluation.json").read_text())
    assert find_policy(tmp_path / "run" / "best").spec.sampled
    assert not kept["is_deterministic"]
    assert kept["mean_reward"] == evaluate(policy, 10, kept["first_seed"])["mean_reward"]
    assert kept["mean_reward"] != evaluate(policy, 10, kept["first_seed"], deterministic=True)["mean_reward"]


def test_a_target_that_the_policy_does_not_reach_is_not_reached_by_training(tmp_path: Path) -> None:
    lost = stubborn_policy("CartPole-v1", 0)  # what one large step may leave: greedily nine steps, whatever was flown
    stop = {"target_return": 15.0, "window": 5, "total_timesteps": 6_000}
    # A second actor could fly all other episodes while the first ones, which are judged first, are in the air.
    trainer = Trainer(cartpole(stop=stop, fleet={"actors": 1}), tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        consider = trainer._evaluator.consider
        patch.setattr(
            trainer._evaluator,
            "consider",
            lambda fleet, _policy, *rest, **options: consider(fleet, ray.put(lost), *rest, **options),
        )
        result = trainer.run()
    assert result.counters.best_mean_return > 15
    assert result.reason == "budget used up"
    assert not result.target_reached
    assert not (tmp_path / "run" / "best").exists()  # all were given up early, but the last
    given_up = [
        row["eval/episodes"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "eval/episodes" in row
    ]
    assert given_up[0] < 100


def test_evaluating_beside_training_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    config = cartpole(
        fleet={"max_policy_lag": 0, "actors": 2},
        stop={"total_timesteps": 10_000},
        evaluation={"eval_every": 3_000, "eval_episodes": 1},
        seed=3,
    )
    names = ("a", "b")
    first, second = (Trainer(config, tmp_path / name).run() for name in names)
    without = Trainer(overlay(config, {"evaluation": {"eval_every": None}}, "test"), tmp_path / "c").run()
    for name, array in without.policy.weights.items():
        np.testing.assert_array_equal(array, first.policy.weights[name])
        np.testing.assert_array_equal(array, second.policy.weights[name])
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in names]
    figures, again = (
        [{k: v for k, v in row.items() if k[:4] == "eval"} for row in r if "eval/episodes" in r] for r in rows
    )
    assert figures == again
    steps = [row["time/total_timesteps"] for row in rows[0] if "eval/episodes" in row]
    assert len(steps) == 3  # two at intervals, and the last policy
    assert np.all(np.diff([0, *steps[:-1]]) >= 3_000)  # the last comes when the run ends
    best = json.loads((tmp_path / "a" / "best" / "evaluation.json").read_text())
    assert best["mean_reward"] == max(row["eval/mean_reward"] for row in rows[0] if "eval/episodes" in row)
    assert not (tmp_path / "c" / "best").exists()


def test_lag_0_repeats_to_the_bit(tmp_path: Path) -> None:
    config = cartpole(
        fleet={"max_policy_lag": 0, "rollouts_per_update": 2, "actors": 2}, stop={"total_timesteps": 8_000}, seed=3
    )
    first, second = (Trainer(config, tmp_path / name).run().policy for name in ("a", "b"))
    assert first.spec == second.spec
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name])
    other = Trainer(overlay(config, {"seed": 4}, "test"), tmp_path / "c").run().policy
    assert not np.array_equal(first.weights["w0"], other.weights["w0"])


def test_a_run_on_anothers_processes_is_the_same_run(tmp_path: Path) -> None:
    config = cartpole(fleet={"max_policy_lag": 0, "actors": 1}, stop={"total_timesteps": 4_000}, seed=3)
    alone = Trainer(config, tmp_path / "alone", spares=None).run().policy
    spares = Spares()
    Trainer(overlay(config, {"seed": 8}, "test"), tmp_path / "first", spares=spares).run()
    processes = [*spares.actors, *spares.learners]
    assert len(processes) == 2
    ray.kill(spares.learners[0])  # a spare that died meanwhile is passed over

    def is_dead() -> bool:
        learners = Spares(learners=processes[1:])
        learners.forget_dead()
        return not learners.learners

    wait_until(is_dead)
    after = Trainer(config, tmp_path / "after", spares=spares).run().policy
    assert spares.actors == processes[:1]
    assert spares.learners != processes[1:]
    for name, array in alone.weights.items():
        np.testing.assert_array_equal(array, after.weights[name])
    for actor in (*spares.actors, *spares.learners):
        ray.kill(actor)


@pytest.mark.parametrize("name", ["vpg", "impala"])
def test_other_kinds_of_preset_train_on_ray(tmp_path: Path, name: str) -> None:
    changes = {"env": "CartPole-v1", "stop": {"total_timesteps": 6_000}, "fleet": CARTPOLE["fleet"]}
    result = Trainer(overlay(preset(name), changes, "test"), tmp_path / "run", name).run()
    check_consistent(tmp_path / "run", result.counters)
    assert result.policy.spec.trained["preset"] == name


def test_continuous_actions_are_learned_on_ray(tmp_path: Path) -> None:
    """Bounds of 3 and 5, and 4.5 is the best."""
    config = cartpole(
        env="tests.actors.fake_environments:AimNear-v0",
        rollout={"n_steps": 32, "backend": "gymnasium"},
        loss={"gamma": 0.9, "reward_scale": 1.0},
        update={"n_epochs": 4, "batch_size": 64, "learning_rate": 1e-2},
        network={"hidden_sizes": [8]},
        stop={"total_timesteps": 8_000},
    )
    result = Trainer(config, tmp_path / "run").run()
    assert result.policy.act(np.zeros((1, 1), np.float32)) == pytest.approx(4.5, abs=0.1)
    assert result.mean_return > -0.15  # at random -0.4: it explores less, too


def test_a_run_is_as_far_behind_as_it_may_be_and_learns(tmp_path: Path) -> None:
    """Two actors are quicker than a learner of many epochs, whose queue is then full."""
    config = cartpole(
        "impala", fleet={"actors": 2, "max_policy_lag": 4}, update={"n_epochs": 30}, stop={"total_timesteps": 40_000}
    )
    result = Trainer(config, tmp_path / "run").run()
    lags = [row["rollout/policy_lag"] for row in check_consistent(tmp_path / "run", result.counters)]
    assert 1 < np.median(lags) <= max(lags) <= 4
    assert result.counters.best_mean_return > 100


def test_the_policy_on_disk_follows_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.run.trainer._POLICY_SECONDS", 0.0)

    def look(_trainer: Trainer) -> None:
        policy = tmp_path / "policy"
        wait_until(lambda: (policy / "policy.safetensors").exists() and Policy.load(policy).spec.version == 4)

    config = cartpole(checkpoint={"checkpoint_seconds": 1000.0}, stop={"total_timesteps": 10_000})
    Trainer(config, tmp_path, callbacks=[Act(4, look)]).run()


def test_in_flight_rollouts_stay_bounded_while_the_learner_is_slow(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch(Callback):
        def on_wait(self, trainer: Trainer) -> None:
            fleet = trainer.fleet
            assert fleet is not None
            seen.append(len(fleet._flights) + len(fleet._landed) + fleet.in_update)  # not an actor that still starts

    config = cartpole(update={"n_epochs": 60}, stop={"total_timesteps": 8_000}, fleet={"actors": 2})
    Trainer(config, tmp_path / "run", callbacks=[Watch()]).run()
    assert max(seen) <= config.fleet.max_outstanding
