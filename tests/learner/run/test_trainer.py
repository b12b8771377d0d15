"""The Trainer on real Ray processes: learning, faults, resuming."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray._private import state as ray_state
from torch import Tensor

from actors.episode import Array, EpisodeBatch
from actors.errors import EnvironmentFault, NonFiniteError, UserError
from actors.fleet import Fleet, Landed
from actors.policy import Policy
from learner.algorithms.policy_gradient import PolicyGradient
from learner.keeping.checkpoint import load_checkpoint
from learner.keeping.metrics_log import read_metrics
from learner.keeping.policies import find_policy
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.counters import Counters
from learner.run.evaluation import evaluate
from learner.run.learner_group import LearnerGroup, LearnerLostError
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from tests.actors.examples import stubborn_policy

pytestmark = pytest.mark.usefixtures("kept_processes")

CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1",
    "rollout": {"n_envs": 16, "n_steps": 64},
    "algorithm": {"gamma": 0.99, "gae_lambda": 0.95, "reward_scale": 0.05, "n_epochs": 6, "batch_size": 256},
    "optimisation": {"learning_rate": 3e-3},
    "network": {"normalize_observations": False},
    "fleet": {"cpus_per_actor": 0.0},  # those that wait for the next run are in nobody's way
}


FOR_EVER = {"total_timesteps": 10**9}
"""Conditions of a run that a callback stops."""


def cartpole(preset_name: str = "ppo", **changes: dict[str, Any]) -> TrainConfig:
    """CartPole settings that learn in seconds, with changes over them."""
    return overlay(overlay(preset(preset_name), CARTPOLE, "test"), changes, "test")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Act(Callback):
    """Does something once, after the update with that number."""

    def __init__(self, after: int, action: Callable[[Trainer], None]) -> None:
        self._after, self._action = after, action
        self.done = False

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if not self.done and metrics["train/n_updates"] >= self._after:
            self.done = True
            self._action(trainer)


def killed(actor: Any) -> bool:
    """SIGKILL a Ray actor's process; False: it has none just now.

    By its name, another could be hit: a spare one, or one that is just about to end.
    """
    process = ray_state.actors(actor._actor_id.hex()).get("Pid", 0)
    if process:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            return True
    return False


def flying_actors(trainer: Trainer) -> list[Any]:
    assert trainer.fleet is not None
    return [slot.actor for slot in trainer.fleet._pool.slots if slot.ready]


def kill_actor(trainer: Trainer) -> None:
    assert killed(flying_actors(trainer)[0])


def kill_learner(trainer: Trainer) -> None:
    assert killed(trainer.learners._learners[0])


def check_consistent(run_dir: Path, counters: Counters) -> list[dict[str, Any]]:
    """Every update is in metrics.jsonl once, in order, and the last row agrees with the counters."""
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if "train/n_updates" in row]
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    steps = [row["time/total_timesteps"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == counters.total_timesteps
    return rows


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


def test_a_killed_actor_is_replaced(tmp_path: Path) -> None:
    class Kill(Callback):
        flown = 0

        def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            assert trainer.fleet is not None
            if metrics["train/n_updates"] == 3:
                kill_actor(trainer)
            if trainer.fleet.restarts and trainer.fleet.size == 2:
                self.flown = self.flown or trainer.counters.total_timesteps
                if trainer.counters.total_timesteps >= self.flown + 10_000:
                    trainer.stop("it flies")

    trainer = Trainer(cartpole(fleet={"actors": 2}, stop=FOR_EVER), tmp_path / "run", callbacks=[Kill()])
    result = trainer.run()
    assert result.reason == "it flies"
    assert trainer.fleet is not None
    assert trainer.fleet.restarts == 1
    check_consistent(tmp_path / "run", result.counters)


def test_actors_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run reaches its target; what was in the air is flown again; no update is lost."""

    class KillActors(Callback):
        version = 0

        def __init__(self) -> None:
            self.killed = set[Any]()

        def on_wait(self, trainer: Trainer) -> None:
            flying = flying_actors(trainer)  # one that is dead may be among them, not missed yet
            living = [actor for actor in flying if actor._actor_id not in self.killed]
            if len(self.killed) < 8 and len(flying) == 2 and living and trainer.version > self.version:
                victim = living[len(self.killed) % len(living)]
                assert killed(victim)
                self.killed.add(victim._actor_id)
                self.version = trainer.version

        def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            if metrics["rollout/actor_restarts"] >= 8 and trainer.counters.best_mean_return >= 450:
                trainer.stop("target reached all the same")

    # On a busy machine any actor can be a straggler, whose rollout is not waited for.
    monkeypatch.setattr("actors.fleet._STRAGGLER", math.inf)
    config = cartpole(fleet={"actors": 2}, stop=FOR_EVER)
    result = Trainer(config, tmp_path / "run", callbacks=[KillActors()]).run()
    assert result.reason == "target reached all the same"
    rows = check_consistent(tmp_path / "run", result.counters)
    assert rows[-1]["rollout/actor_restarts"] == 8
    assert rows[-1]["rollout/dropped"] == 0
    assert rows[-1]["rollout/learner_restarts"] == 0


def test_a_killed_learner_comes_back_from_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killing = Act(8, kill_learner)
    config = cartpole(stop={"total_timesteps": 20_000}, checkpoint={"checkpoint_seconds": 0.2})
    with caplog.at_level(logging.WARNING, "touchdown"):
        result = Trainer(config, tmp_path / "run", callbacks=[killing]).run()
    assert "the learner died; going on from the checkpoint" in caplog.text
    rows = check_consistent(tmp_path / "run", result.counters)
    assert result.policy.spec.version == rows[-1]["train/n_updates"]
    assert result.counters.total_timesteps >= 20_000


def test_a_restart_that_is_lost_before_it_runs_is_one_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts it on a node that is gone, while it has not noticed yet."""
    start, starts = LearnerGroup.start, []

    def lose_the_second(group: LearnerGroup, state: dict[str, Array] | None) -> Any:
        config = group._placement
        if len(starts) == 1:  # it must not run before it is killed
            group._placement = dataclasses.replace(config, learner_labels={"role": "moon"})
        policy = start(group, state)
        group._placement = config
        starts.append(policy)
        if len(starts) == 2:
            ray.kill(group._learners[0])
        return policy

    monkeypatch.setattr(LearnerGroup, "start", lose_the_second)
    trainer = Trainer(cartpole(stop={"total_timesteps": 20_000}), tmp_path, callbacks=[Act(3, kill_learner)])
    assert trainer.run().reason == "budget used up"
    assert len(starts) == 3
    assert check_consistent(tmp_path, trainer.counters)[-1]["rollout/learner_restarts"] == 1


class KillLearner(Callback):
    """Kills the learner so many times: as it starts, and then at random moments after it has learned something.

    The run ends some updates after the last time.
    """

    def __init__(self, times: int) -> None:
        self._rng = random.Random(0)
        self._left, self._next, self._last = times, math.inf, 0

    def on_start(self, trainer: Trainer) -> None:
        self._kill(trainer)

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self._next == math.inf:
            self._next = time.monotonic() + self._rng.uniform(0, 0.5)
        if not self._left and trainer.version >= self._last + 20:
            trainer.stop("killed often enough")

    def on_wait(self, trainer: Trainer) -> None:
        if self._left and time.monotonic() > self._next:
            self._kill(trainer)

    def _kill(self, trainer: Trainer) -> None:
        self._left -= killed(trainer.learners._learners[0])
        self._next, self._last = math.inf, trainer.version


def test_a_learner_killed_at_random_moments(tmp_path: Path) -> None:
    config = cartpole(checkpoint={"checkpoint_seconds": 0.0}, stop=FOR_EVER, update={"n_epochs": 1})
    result = Trainer(config, tmp_path, callbacks=[KillLearner(4)]).run()
    assert result.reason == "killed often enough"
    rows = check_consistent(tmp_path, result.counters)
    assert rows[-1]["train/n_updates"] == result.policy.spec.version


def test_a_learner_that_dies_with_the_run_comes_back_to_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last update is done, and the learner is gone before its checkpoint is written."""
    loop = Trainer._loop
    killed = []

    def dying(trainer: Trainer) -> str:
        reason = loop(trainer)
        if not killed:
            killed.append(trainer.version)
            kill_learner(trainer)
        return reason

    monkeypatch.setattr(Trainer, "_loop", dying)
    config = cartpole(checkpoint={"checkpoint_seconds": 1000.0}, stop={"total_timesteps": 8000})
    trainer = Trainer(config, tmp_path)
    result = trainer.run()
    assert trainer.learner_restarts == 1
    assert result.reason == "budget used up"
    check_consistent(tmp_path, result.counters)


def test_a_learner_that_always_dies_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = LearnerGroup.update

    def dying(group: LearnerGroup, *arguments: Any) -> Any:
        killed(group._learners[0])
        return update(group, *arguments)

    class Kill(Callback):
        def on_wait(self, trainer: Trainer) -> None:
            killed(trainer.learners._learners[0])

    monkeypatch.setattr("learner.run.trainer._MAX_LEARNER_DEATHS", 3)
    monkeypatch.setattr(LearnerGroup, "update", dying)  # else it could be done with one before it is killed
    trainer = Trainer(cartpole(), tmp_path, callbacks=[Kill()])
    with pytest.raises(LearnerLostError, match="the learner died 3 times without an update"):
        trainer.run()
    assert trainer.fleet is not None
    assert trainer.fleet.restarts == 0, "no actor died of it"


ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(
    ("learners", "error", "words", "failures"),
    [
        (1, "AcceleratorError", ILLEGAL, 1),
        (2, "OutOfMemoryError", NO_MEMORY, 1),
        (1, "OutOfMemoryError", NO_MEMORY, 2),
    ],
)
def test_a_device_that_fails_costs_the_time_since_the_checkpoint_and_memory_twice_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, learners: int, error: str, words: str, failures: int
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    failing = {"error": error, "words": words, "failures": failures, "marks": str(marks)}
    config = cartpole(
        algorithm={"name": "tests.learner.learners:OnAFailingDevice", **failing},
        placement={"learners": learners, "device": "cpu"},
        stop={"total_timesteps": 6_000},
    )
    trainer = Trainer(config, tmp_path / "run")
    if failures == 1:
        check_consistent(tmp_path / "run", trainer.run().counters)
    else:
        with pytest.raises(UserError, match=f"the learner cannot go on: {NO_MEMORY}; lower --batch-size, "):
            trainer.run()
    assert trainer.learner_restarts == 1
    assert f"it died of this: {words.splitlines()[0]}" in caplog.text


def test_a_learner_that_dies_between_updates_is_missed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no update needs it: the rollouts for the next one take long."""
    take = Fleet.take
    killed = []

    def take_nothing_from_a_dead_learner(fleet: Fleet, version: int) -> list[Landed]:
        return take(fleet, version) if not killed or trainer.learner_restarts else []

    class Kill(Callback):
        def on_wait(self, trainer: Trainer) -> None:
            if not killed and trainer.version >= 3 and trainer._update is None:
                killed.append(trainer.version)
                kill_learner(trainer)

    monkeypatch.setattr(Fleet, "take", take_nothing_from_a_dead_learner)
    config = cartpole(stop={"total_timesteps": 20_000, "max_seconds": 600})
    trainer = Trainer(config, tmp_path, callbacks=[Kill()])
    assert trainer.run().reason == "budget used up"
    assert trainer.learner_restarts == 1
    assert trainer.counters.total_timesteps >= 20_000
    assert trainer.fleet is not None
    assert trainer.fleet.restarts == 0


def test_the_policy_on_disk_follows_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.run.trainer._POLICY_SECONDS", 0.0)

    def look(_trainer: Trainer) -> None:
        policy = tmp_path / "policy"
        wait_until(lambda: (policy / "policy.safetensors").exists() and Policy.load(policy).spec.version == 4)

    config = cartpole(checkpoint={"checkpoint_seconds": 1000.0}, stop={"total_timesteps": 10_000})
    Trainer(config, tmp_path, callbacks=[Act(4, look)]).run()


def test_resume_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    config = cartpole(stop={"total_timesteps": 10_000})
    first = Trainer(config, tmp_path / "run").run()
    longer = overlay(config, {"stop": {"total_timesteps": 20_000}}, "test")
    second = Trainer(longer, tmp_path / "run", resume=True).run()
    rows = check_consistent(tmp_path / "run", second.counters)
    assert second.counters.total_timesteps >= 20_000 > first.counters.total_timesteps
    assert second.policy.spec.version == len(rows) > first.policy.spec.version
    assert second.counters.seconds > first.counters.seconds
    assert RunDirectory(tmp_path / "run").config() == longer, "the record tells what was done"


def test_a_run_says_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does nothing when it is to go on though it has ended, unless there is more to do."""
    config = cartpole(stop={"total_timesteps": 5_000, "target_return": 501.0, "window": 20})  # one more than there is
    result = Trainer(config, tmp_path / "run", callbacks=[Act(2, lambda trainer: trainer.stop("seen enough"))]).run()
    directory = RunDirectory(tmp_path / "run")
    record = directory.result()
    assert record
    assert (record["reason"], record["has_ended"], record["target_reached"]) == ("seen enough", False, False)
    result = Trainer(config, tmp_path / "run", resume=True).run()
    record = directory.result()
    assert record
    assert (record["reason"], record["has_ended"]) == ("budget used up", True)
    assert (record["target_return"], record["target_reached"]) == (501, False)
    counters = result.counters
    assert record["total_timesteps"] == counters.total_timesteps >= 5_000
    assert (record["episodes"], record["seconds"]) == (counters.episodes, counters.seconds)
    assert record["best_mean_return"] == counters.best_mean_return
    assert record["policy_version"] == result.policy.spec.version

    with monkeypatch.context() as patch:
        patch.setattr("learner.run.trainer.start_ray", lambda: pytest.fail("Ray was started"))
        again = Trainer(config, tmp_path / "run", resume=True)
        assert again.ended
        ended = again.run()
    assert (ended.reason, ended.missed) == ("budget used up", True)
    assert equal_weights(ended.policy, result.policy)
    assert directory.result() == record
    longer = overlay(config, {"stop": {"total_timesteps": 10_000}}, "test")
    assert Trainer(longer, tmp_path / "run", resume=True).ended is None


def test_a_run_of_another_environment_cannot_go_on(tmp_path: Path) -> None:
    RunDirectory(tmp_path).create(cartpole(), "ppo")
    with pytest.raises(UserError, match="is one of CartPole-v1: it cannot go on with Acrobot-v1"):
        Trainer(cartpole(env="Acrobot-v1"), tmp_path, resume=True)
    assert Trainer(cartpole(env="CartPole"), tmp_path, resume=True).config.env == "CartPole-v1"


class Record(Callback):
    """Keeps every batch that is learned from, in order."""

    def __init__(self) -> None:
        self.batches: list[EpisodeBatch] = []

    def on_start(self, trainer: Trainer) -> None:
        assert trainer.fleet is not None
        take = trainer.fleet.take

        def record(version: int) -> list[Landed]:
            landed = take(version)
            self.batches += ray.get([rollout.batch for rollout in landed])
            return landed

        trainer.fleet.take = record  # type: ignore[method-assign]


def starts(batches: list[EpisodeBatch]) -> set[tuple[float, ...]]:
    """First observations of all segments."""
    firsts = [np.append(0, np.cumsum(batch.segment_lengths)[:-1]) for batch in batches]
    return {tuple(row) for batch, first in zip(batches, firsts, strict=True) for row in batch.observations[first]}


def equal_weights(one: Policy, other: Policy) -> bool:
    return all(np.array_equal(array, other.weights[name]) for name, array in one.weights.items())


WHOLE: dict[str, Any] = {
    "rollout": {"n_steps": None, "episodes_per_env": 1},
    "fleet": {"max_policy_lag": 0, "rollouts_per_update": 2, "actors": 2},
}


def test_whole_episodes_at_lag_0_resumed_are_those_of_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    """Nor does it show that a learner died, or an actor."""

    def config(updates: int) -> TrainConfig:
        stop = {"total_timesteps": None, "max_episodes": updates * 32}
        constant = {"schedule": "constant"}  # a linear one depends on the budget
        return cartpole(**WHOLE, stop=stop, update=constant, checkpoint={"checkpoint_seconds": 1000.0})

    unbroken = Trainer(config(6), tmp_path / "unbroken").run().policy
    Trainer(config(3), tmp_path / "resumed").run()
    assert equal_weights(unbroken, Trainer(config(6), tmp_path / "resumed", resume=True).run().policy)
    mishaps = [
        Act(2, lambda trainer: trainer.save()),
        Act(3, kill_actor),
        Act(4, kill_learner),
    ]
    unlucky = Trainer(config(6), tmp_path / "unlucky", callbacks=mishaps)
    assert equal_weights(unbroken, unlucky.run().policy)
    assert unlucky.learner_restarts == 1


class Rates(Callback):
    """Keeps the learning rate of every update."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.rates.append(metrics["train/learning_rate"])


def test_a_linear_schedule_never_jumps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It falls on from where it was, to 0 at the budget's end, however often that is moved."""

    def fly(name: str, updates: int, *callbacks: Callback) -> list[float]:
        rates, directory = Rates(), tmp_path / name
        stop = {"total_timesteps": None, "max_episodes": updates * 32}
        config = cartpole(**WHOLE, stop=stop, update={"learning_rate": 0.01, "n_epochs": 1})
        Trainer(config, directory, resume=directory.exists(), callbacks=[rates, *callbacks]).run()
        return [100 * rate for rate in rates.rates]

    halfway = Act(5, lambda trainer: trainer.stop("spot notice"))
    rates = fly("resumed", 10, halfway) + fly("resumed", 10)
    assert rates == [100 * (0.01 * (1 - i / 10)) for i in range(10)]
    assert "the budget has changed" not in caplog.text
    extended = fly("resumed", 20)  # the last update of the first ten had a tenth
    assert extended == pytest.approx([0.1 * (1 - i / 10) for i in range(10)])
    assert (
        "the budget has changed: the learning rate falls from 0.001, where it was, to 0 at the new end" in caplog.text
    )
    assert fly("resumed", 25) == pytest.approx([0.01 * (1 - i / 5) for i in range(5)])
    halfway = Act(5, lambda trainer: trainer.stop("spot notice"))
    fly("shortened", 10, halfway)
    assert fly("shortened", 8) == pytest.approx([0.6 * (1 - i / 3) for i in range(3)])


def test_a_linear_schedule_needs_a_budget(tmp_path: Path) -> None:
    config = cartpole(stop={"target_return": 450.0, "total_timesteps": None})
    with pytest.raises(UserError, match="schedule 'linear' falls to zero at the end of a budget, and target_return is"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("max_policy_lag", [0, 1])
@pytest.mark.parametrize("kind", ["fragments", "episodes"])
def test_a_resumed_run_sees_new_episodes(tmp_path: Path, kind: str, max_policy_lag: int) -> None:
    """As does one that is resumed again and again."""
    rollout = {"n_envs": 4} | ({"n_steps": 40} if kind == "fragments" else {"n_steps": None, "episodes_per_env": 1})
    config = cartpole(rollout=rollout, fleet={"max_policy_lag": max_policy_lag, "actors": 1})
    seen: set[tuple[float, ...]] = set()
    for life in range(3):
        record, stop = Record(), Act(3 * life + 3, lambda trainer: trainer.stop("spot notice"))
        Trainer(config, tmp_path / "run", resume=life > 0, callbacks=[record, stop]).run()
        flown = starts(record.batches)
        assert len(flown) == sum(batch.num_segments for batch in record.batches) >= 8
        assert not seen & flown
        seen |= flown


def test_resume_passes_over_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = cartpole(stop={"total_timesteps": 10_000}, checkpoint={"checkpoint_seconds": 0.0})
    Trainer(config, tmp_path / "run", callbacks=[Act(2, Trainer.save)]).run()
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "touchdown"):
        resumed = Trainer(overlay(config, {"stop": {"total_timesteps": 15_000}}, "test"), tmp_path / "run", resume=True)
    assert f"checkpoint {newest} is damaged" in caplog.text
    result = resumed.run()
    check_consistent(tmp_path / "run", result.counters)


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").create(cartpole(), None)
    with pytest.raises(UserError, match="already holds a run: go on with --resume"):
        Trainer(cartpole(), tmp_path / "run")


@dataclasses.dataclass(frozen=True)
class BreaksLater(PolicyGradient):
    def loss(self, network: Any, steps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().loss(network, steps)
        calls.append(len(steps["returns"]))
        return loss * (math.inf if len(calls) > 60 else 1.0), metrics


calls: list[int] = []


@dataclasses.dataclass(frozen=True)
class ReadsAValue(PolicyGradient):
    def loss(self, network: Any, steps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().loss(network, steps)
        return (2 * loss if metrics["approx_kl"] > 0.1 else loss), metrics


def test_who_trains_is_told_once_that_a_loss_runs_unrecorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = cartpole(algorithm={"name": f"{__name__}:ReadsAValue"}, stop={"total_timesteps": 6_000})
    result = Trainer(config, tmp_path).run()
    assert result.policy.spec.version > 3
    lines = [message for message in caplog.messages if "runs unrecorded" in message]
    assert len(lines) == 1
    assert f"Tensor.__bool__ reads a tensor's value ({__file__}:" in lines[0]


def test_a_loss_that_overflows_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    config = cartpole(algorithm={"name": f"{__name__}:BreaksLater"}, checkpoint={"checkpoint_seconds": 0.0})
    with pytest.raises(NonFiniteError, match=r"update \d+: .*loss.* became NaN or infinite"):
        Trainer(config, tmp_path / "run", callbacks=[Act(1, Trainer.save)]).run()
    assert sorted((tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    Policy.load(tmp_path / "run" / "policy")


def test_an_algorithm_that_no_other_process_finds_is_refused_before_anything_starts(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Local(PolicyGradient):
        """Made in a function."""

    config = dataclasses.replace(cartpole(), algorithm=Local())
    with pytest.raises(UserError, match=r"this configuration, read again: algorithm .*Local"):
        Trainer(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    listed = dataclasses.replace(cartpole().network, hidden_sizes=[8, 8])  # as a script may well write it
    Trainer(dataclasses.replace(cartpole(), network=listed), tmp_path / "run")


def test_what_is_wrong_with_an_environment_is_found_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="OldStep-v0: step must return"):
        Trainer(cartpole(env="tests.actors.fake_environments:OldStep-v0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_environment_that_keeps_raising_stops_the_run_with_its_traceback(tmp_path: Path) -> None:
    config = cartpole(env="tests.learner.broken_environment:Broken-v0", rollout={"backend": "gymnasium"})
    with pytest.raises(EnvironmentFault) as caught:
        Trainer(config, tmp_path / "run").run()
    said, where = str(caught.value).split("; its traceback is in ")
    assert said == "tests.learner.broken_environment:Broken-v0: step raised RuntimeError: the motor is on fire"
    assert "broken_environment.py" in Path(where).read_text()


def test_an_observation_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    config = cartpole(env="tests.learner.broken_environment:NotANumber-v0", rollout={"backend": "gymnasium"})
    with pytest.raises(NonFiniteError, match=r"NotANumber-v0: .*observation"):
        Trainer(config, tmp_path / "run").run()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The real thing: a small file system, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=2m tmpfs {disk}") != 0:
        pytest.skip("needs to mount a small file system")
    yield disk
    os.system(f"umount {disk}")


def fill(disk: Path, trainer: Trainer) -> None:
    """Fill a disk while nothing is half-written, which would make room again as it failed."""
    trainer.save()
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_training_goes_on_while_the_disk_is_full(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written for a while; what was learned meanwhile is there in the end."""
    saved = []

    class FullForAWhile(Callback):
        def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            update = metrics["train/n_updates"]
            if update == 5:
                fill(small_disk, trainer)
            if update == 20:
                wait_until(lambda: trainer.recorder.failures > 0)
                saved.append(trainer.recorder.unsaved_seconds)
                (small_disk / "filler").unlink()

    config = cartpole(stop={"total_timesteps": 30_000}, checkpoint={"checkpoint_seconds": 0.0})
    with caplog.at_level(logging.INFO, "touchdown"):
        result = Trainer(config, small_disk / "run", callbacks=[FullForAWhile()]).run()
    assert saved
    assert saved[0] > 0
    assert "training goes on, writing is tried again" in caplog.text
    assert f"writing to {small_disk / 'run'} again after" in caplog.text
    check_consistent(small_disk / "run", result.counters)
    resumed = Trainer(config, small_disk / "run", resume=True)
    assert resumed.counters.total_timesteps == result.counters.total_timesteps
    assert Policy.load(small_disk / "run" / "policy").spec.version == result.policy.spec.version


def test_a_disk_that_stays_full_is_a_clear_error_and_loses_nothing(small_disk: Path) -> None:
    def give_up_soon(trainer: Trainer) -> None:
        wait_until(lambda: trainer.recorder.failures > 0)
        patch.setattr("learner.run.run_recorder.PATIENCE", 1.0)

    config = cartpole(stop={"total_timesteps": 20_000}, checkpoint={"checkpoint_seconds": 0.0})
    callbacks = [Act(5, lambda trainer: fill(small_disk, trainer)), Act(10, give_up_soon)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left on device"):
        Trainer(config, small_disk / "run", callbacks=callbacks).run()
    Policy.load(small_disk / "run" / "policy")
    (small_disk / "filler").unlink()
    result = Trainer(config, small_disk / "run", resume=True).run()
    check_consistent(small_disk / "run", result.counters)


def test_sigterm_ends_a_run_after_its_update(tmp_path: Path) -> None:
    stopping = Act(2, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    result = Trainer(cartpole(), tmp_path / "run", callbacks=[stopping]).run()
    assert result.reason == "SIGTERM received"
    resumed = Trainer(cartpole(), tmp_path / "run", resume=True)
    assert resumed.counters.total_timesteps == result.counters.total_timesteps


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"fleet": {"cpus_per_actor": 1.0, "actor_labels": {"role": "moon"}}},
            "waiting for 1 of 1 actors, each for a node to fly on, with 1 CPU, label role=moon",
        ),
        (
            {"fleet": {"actors": 3, "rollouts_per_update": 3, "cpus_per_actor": 1.0, "max_policy_lag": 0}},
            "waiting for 1 of 3 actors, each for a node to fly on, with 1 CPU; with max_policy_lag 0 none flies",
        ),
        ({"placement": {"learner_labels": {"role": "moon"}}}, "waiting for a node to learn on, with label role=moon"),
    ],
)
def test_who_waits_for_a_node_says_for_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, changes: Any, said: str
) -> None:
    monkeypatch.setattr("actors.waiting.PATIENT_SECONDS", 0.0)
    trainer = Trainer(cartpole(**changes), tmp_path / "run", spares=None)

    def stop() -> None:
        try:
            wait_until(lambda: said in caplog.text)
        finally:
            trainer.stop("seen enough")

    stopping = threading.Thread(target=stop)
    stopping.start()
    if "fleet" in changes:
        assert trainer.run().counters.total_timesteps == 0
    else:
        with pytest.raises(UserError, match="seen enough before there was a learner; nothing is lost"):
            trainer.run()
    stopping.join()
    assert said in caplog.text


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


def test_a_run_of_other_networks_cannot_go_on(tmp_path: Path) -> None:
    config = cartpole(stop={"total_timesteps": 1_000})
    Trainer(config, tmp_path / "run").run()
    wider = overlay(config, {"network": {"hidden_sizes": [128]}, "stop": {"total_timesteps": 9_000}}, "test")
    with pytest.raises(UserError, match=r"goes on with its own NetworkConfig\(network='auto', hidden_sizes=\(64"):
        Trainer(wider, tmp_path / "run", resume=True)
    assert RunDirectory(tmp_path / "run").config() == config
