"""What is in a run's way, from a broken loss to a full disk: the run says so in one line, and keeps what it learned."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from actors.errors import EnvironmentFault, NonFiniteError, UserError
from actors.policy import Policy
from learner.algorithms.policy_gradient import PolicyGradient
from learner.run.callback import Callback
from learner.run.trainer import Trainer
from tests.learner.run.short_runs import Act, cartpole, check_consistent, wait_until

pytestmark = pytest.mark.usefixtures("kept_processes")


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
