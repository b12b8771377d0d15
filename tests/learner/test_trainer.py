"""The Trainer on real Ray processes: learning, faults, resuming."""

from __future__ import annotations

import contextlib
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
import psutil
import pytest
import ray
from ray.exceptions import RayTaskError
from torch import Tensor

from actors.errors import NonFiniteError, UserError
from actors.policy import Policy
from learner.config import TrainConfig, overlay
from learner.counters import Counters
from learner.evaluate import evaluate
from learner.hyperparameters import LossConfig
from learner.learner_group import LearnerLostError
from learner.losses import Metrics, Minibatch, Outputs, policy_gradient
from learner.metrics_log import read_metrics
from learner.presets import preset
from learner.trainer import Callback, Spares, Trainer

pytestmark = pytest.mark.usefixtures("ray_cluster")

CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1",
    "rollout": {"n_envs": 16, "n_steps": 64},
    "loss": {"gamma": 0.99, "gae_lambda": 0.95, "reward_scale": 0.05},
    "update": {"n_epochs": 6, "batch_size": 256, "learning_rate": 3e-3},
    "network": {"normalize_observations": False},
}


def cartpole(preset_name: str = "ppo", **changes: dict[str, Any]) -> TrainConfig:
    """CartPole settings that learn in seconds, with changes over them."""
    return overlay(overlay(preset(preset_name), CARTPOLE, "test"), changes, "test")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
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


def kill_process(title: str) -> None:
    """SIGKILL one of this test's own Ray workers, by the name Ray gives its process."""
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(title):
                os.kill(process.pid, signal.SIGKILL)
                return
        except psutil.NoSuchProcess:
            continue
    raise AssertionError(f"no process {title}")


def check_consistent(run_dir: Path, counters: Counters) -> list[dict[str, Any]]:
    """Every update is in metrics.jsonl once, in order, and the last row agrees with the counters."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["train/n_updates"] for row in rows] == list(range(1, len(rows) + 1))
    steps = [row["time/total_timesteps"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == counters.total_timesteps
    return rows


def test_ppo_learns_cartpole_to_450(tmp_path: Path) -> None:
    config = cartpole(stop={"target_return": 450.0, "window": 50, "total_timesteps": 400_000})
    result = Trainer(config, tmp_path / "run").run()
    assert result.reason == "target return 450 reached"
    score = evaluate(Policy.load(tmp_path / "run" / "policy"), episodes=20, seed=10_000)
    assert score["mean_reward"] >= 450
    rows = check_consistent(tmp_path / "run", result.counters)
    assert max(row["rollout/policy_lag"] for row in rows) <= 1
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


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
    alone = Trainer(config, tmp_path / "alone").run().policy
    spares = Spares()
    Trainer(overlay(config, {"seed": 8}, "test"), tmp_path / "first", spares=spares).run()
    processes = [*spares.actors, *spares.learners]
    assert len(processes) == 2
    ray.kill(spares.learners[0])  # a spare that died meanwhile is passed over
    after = Trainer(config, tmp_path / "after", spares=spares).run().policy
    assert spares.actors == processes[:1]
    assert spares.learners != processes[1:]
    for name, array in alone.weights.items():
        np.testing.assert_array_equal(array, after.weights[name])
    for actor in (*spares.actors, *spares.learners):
        ray.kill(actor)


@pytest.mark.parametrize("name", ["vpg", "impala"])
def test_other_kinds_of_preset_train_on_ray(tmp_path: Path, name: str) -> None:
    changes = {"env": "CartPole-v1", "stop": {"total_timesteps": 6_000}}
    result = Trainer(overlay(preset(name), changes, "test"), tmp_path / "run", name).run()
    check_consistent(tmp_path / "run", result.counters)
    assert result.policy.spec.trained["preset"] == name


def test_continuous_actions_train_on_ray(tmp_path: Path) -> None:
    config = overlay(preset("ppo"), {"env": "Pendulum-v1", "stop": {"total_timesteps": 20_000}}, "test")
    policy = Trainer(config, tmp_path / "run").run().policy
    actions = policy.act(np.zeros((5, 3), np.float32), np.random.default_rng(0))
    assert actions.shape == (5, 1)
    assert np.abs(actions).max() <= 2


def test_a_killed_actor_is_replaced(tmp_path: Path) -> None:
    killing = Act(3, lambda trainer: kill_process("ray::RolloutActor"))
    config = cartpole(stop={"total_timesteps": 60_000})
    trainer = Trainer(config, tmp_path / "run", callbacks=[killing])
    result = trainer.run()
    assert killing.done
    assert trainer.fleet is not None
    assert trainer.fleet.restarts >= 1
    check_consistent(tmp_path / "run", result.counters)
    assert result.counters.total_timesteps >= 60_000


def test_an_actor_killed_every_two_seconds_for_a_minute(tmp_path: Path) -> None:
    """The run reaches its target; what was in the air is flown again; no update is lost."""

    class KillActors(Callback):
        killed, next = 0, 0.0

        def on_wait(self, trainer: Trainer) -> None:
            now = time.monotonic()
            if now >= self.next and trainer.fleet and trainer.fleet.size:
                self.next = now + 2
                kill_process("ray::RolloutActor")
                self.killed += 1
            if self.killed >= 30 and trainer.counters.best_mean_return >= 450:
                trainer.stop("target reached after a minute")

    killer = KillActors()
    config = cartpole(fleet={"actors": 2}, stop={"total_timesteps": None, "max_seconds": 120})
    result = Trainer(config, tmp_path / "run", callbacks=[killer]).run()
    assert result.reason == "target reached after a minute"
    rows = check_consistent(tmp_path / "run", result.counters)
    assert killer.killed - 2 <= rows[-1]["rollout/actor_restarts"] <= killer.killed
    assert rows[-1]["rollout/dropped"] <= killer.killed  # an actor that starts can make another's rollout late
    assert rows[-1]["rollout/learner_restarts"] == 0


def test_a_killed_learner_comes_back_from_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killing = Act(8, lambda trainer: kill_process("ray::LearnerActor"))
    config = cartpole(stop={"total_timesteps": 40_000}, checkpoint={"checkpoint_seconds": 0.2})
    with caplog.at_level(logging.WARNING, "touchdown"):
        result = Trainer(config, tmp_path / "run", callbacks=[killing]).run()
    assert "the learner died; going on from the checkpoint" in caplog.text
    rows = check_consistent(tmp_path / "run", result.counters)
    assert result.policy.spec.version == rows[-1]["train/n_updates"]
    assert result.counters.total_timesteps >= 40_000


class KillLearner(Callback):
    """Kills the learner so many times: as it starts, and then at random moments after it has learned something."""

    def __init__(self, times: int) -> None:
        self._rng = random.Random(0)
        self.left, self._next = times, math.inf

    def on_start(self, trainer: Trainer) -> None:
        self.kill()

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self._next == math.inf:
            self._next = time.monotonic() + self._rng.uniform(0, 0.5)

    def on_wait(self, trainer: Trainer) -> None:
        if self.left and time.monotonic() > self._next:
            self.kill()

    def kill(self) -> None:
        with contextlib.suppress(AssertionError):  # there is none at this moment
            kill_process("ray::LearnerActor")
            self.left -= 1
        self._next = math.inf


def test_a_learner_killed_ten_times_at_random_moments(tmp_path: Path) -> None:
    config = cartpole(checkpoint={"checkpoint_seconds": 0.0}, stop={"total_timesteps": 300_000}, update={"n_epochs": 1})
    killer = KillLearner(10)
    result = Trainer(config, tmp_path, callbacks=[killer]).run()
    assert killer.left == 0
    assert result.reason == "budget used up"
    rows = check_consistent(tmp_path, result.counters)
    assert rows[-1]["train/n_updates"] == result.policy.spec.version
    assert result.counters.total_timesteps >= 300_000


def test_a_learner_that_dies_with_the_run_comes_back_to_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last update is done, and the learner is gone before its checkpoint is written."""
    loop = Trainer._loop
    killed = []

    def dying(trainer: Trainer) -> str:
        reason = loop(trainer)
        if not killed:
            killed.append(trainer.version)
            kill_process("ray::LearnerActor")
        return reason

    monkeypatch.setattr(Trainer, "_loop", dying)
    config = cartpole(checkpoint={"checkpoint_seconds": 1000.0}, stop={"total_timesteps": 8000})
    result = Trainer(config, tmp_path).run()
    assert killed
    assert result.reason == "budget used up"
    check_consistent(tmp_path, result.counters)


def test_a_learner_that_always_dies_ends_the_run_in_one_line(tmp_path: Path) -> None:
    killer = KillLearner(5)
    killing = Act(0, lambda _: None)
    killing.on_wait = lambda _: killer.kill()  # type: ignore[method-assign]
    with pytest.raises(LearnerLostError, match="the learner died 5 times without an update"):
        Trainer(cartpole(), tmp_path, callbacks=[killing]).run()


def test_the_policy_on_disk_follows_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.trainer._POLICY_SECONDS", 0.0)

    def look(_trainer: Trainer) -> None:
        wait_until(lambda: Policy.load(tmp_path / "policy").spec.version == 4)

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


def test_resume_passes_over_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = cartpole(stop={"total_timesteps": 10_000}, checkpoint={"checkpoint_seconds": 0.0})
    Trainer(config, tmp_path / "run").run()
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "touchdown"):
        resumed = Trainer(overlay(config, {"stop": {"total_timesteps": 15_000}}, "test"), tmp_path / "run", resume=True)
    assert f"checkpoint {newest} is damaged" in caplog.text
    result = resumed.run()
    check_consistent(tmp_path / "run", result.counters)


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    Trainer(cartpole(), tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run: go on with --resume"):
        Trainer(cartpole(), tmp_path / "run")


def breaks_later(outputs: Outputs, batch: Minibatch, config: LossConfig) -> tuple[Tensor, Metrics]:
    """A user's loss that overflows once returns are long enough."""
    loss, metrics = policy_gradient(outputs, batch, config)
    return loss * (batch.returns.mean() * 1e3).exp().square(), metrics


def test_a_loss_that_overflows_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    config = cartpole(loss={"loss": f"{__name__}:breaks_later"}, checkpoint={"checkpoint_seconds": 0.0})
    with pytest.raises(NonFiniteError, match=r"update \d+: .*loss.* became NaN or infinite"):
        Trainer(config, tmp_path / "run").run()
    assert sorted((tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    Policy.load(tmp_path / "run" / "policy")


def test_an_environment_that_keeps_raising_stops_the_run_with_its_traceback(tmp_path: Path) -> None:
    config = cartpole(env="tests.learner.broken_environment:Broken-v0", rollout={"backend": "gymnasium"})
    with pytest.raises(RayTaskError, match="the motor is on fire"):
        Trainer(config, tmp_path / "run").run()


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


def fill(disk: Path) -> None:
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
                fill(small_disk)
            if update == 20:
                saved.append(trainer.saver.unsaved_seconds)
                assert trainer.saver.failures > 0
                (small_disk / "filler").unlink()

    config = cartpole(stop={"total_timesteps": 60_000}, checkpoint={"checkpoint_seconds": 0.0})
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


def test_a_disk_that_stays_full_is_a_clear_error_and_loses_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.saver.PATIENCE", 1.0)
    config = cartpole(stop={"total_timesteps": 20_000}, checkpoint={"checkpoint_seconds": 0.0})
    with pytest.raises(OSError, match="No space left on device"):
        Trainer(config, small_disk / "run", callbacks=[Act(5, lambda _: fill(small_disk))]).run()
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
        ({"fleet": {"actor_labels": {"role": "moon"}}}, "waiting for a node to fly on, with 1 CPU, label role=moon"),
        ({"update": {"learner_labels": {"role": "moon"}}}, "waiting for a node to learn on, with label role=moon"),
    ],
)
def test_who_waits_for_a_node_says_for_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, changes: Any, said: str
) -> None:
    for module in ("trainer", "learner_group"):
        monkeypatch.setattr(f"learner.{module}.PATIENT_SECONDS", 0.0)
    trainer = Trainer(cartpole(**changes), tmp_path / "run")

    def stop() -> None:
        wait_until(lambda: said in caplog.text)
        trainer.stop("seen enough")

    stopping = threading.Thread(target=stop)
    stopping.start()
    if "fleet" in changes:
        assert trainer.run().counters.total_timesteps == 0
    else:
        with pytest.raises(UserError, match="seen enough before there was a learner; nothing is lost"):
            trainer.run()
    stopping.join()


def test_in_flight_rollouts_stay_bounded_while_the_learner_is_slow(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch(Callback):
        def on_wait(self, trainer: Trainer) -> None:
            assert trainer.fleet is not None
            seen.append(len(trainer.fleet.waiting_for) + trainer.fleet.in_update)

    config = cartpole(update={"n_epochs": 60}, stop={"total_timesteps": 15_000}, fleet={"actors": 2})
    Trainer(config, tmp_path / "run", callbacks=[Watch()]).run()
    assert max(seen) <= config.fleet.max_outstanding


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    """Not met with rollouts of a version that the learner never reaches."""
    config = cartpole(stop={"total_timesteps": 1_000})
    Trainer(config, tmp_path / "run").run()
    wider = overlay(config, {"network": {"hidden_sizes": [128]}, "stop": {"total_timesteps": 9_000}}, "test")
    with pytest.raises(UserError, match=r"the checkpoint has \d+ parameters, this configuration \d+"):
        Trainer(wider, tmp_path / "run", resume=True).run()
