"""The places where runs are kept: a disk, and an object store that speaks S3, over a connection that can break."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

import learner.keeping.storage
from actors.errors import UserError
from learner.keeping.checkpoint import load_checkpoint, save_checkpoint
from learner.keeping.policies import find_policy
from learner.keeping.storage import Disk, ObjectStore, Storage, open_storage
from learner.run.callback import Callback
from learner.run.run_directory import RunDirectory
from learner.run.trainer import Trainer
from tests.learner.link import Link
from tests.learner.run.short_runs import Act, cartpole


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return open_storage(tmp_path / "runs" / "first")
    request.getfixturevalue("s3")
    return open_storage(f"s3://bucket/{request.node.originalname}/first")


def test_what_a_place_is_called(s3: Link) -> None:
    assert isinstance(open_storage("runs/first"), Disk)
    assert isinstance(open_storage("file:///runs/first"), Disk)
    assert str(open_storage("s3://bucket/runs/first/").within("policy")) == "s3://bucket/runs/first/policy"
    with pytest.raises(UserError, match="no credentials in a URI"):
        open_storage("s3://key:secret@bucket/run")
    with pytest.raises(UserError, match=r"s3:// names no bucket|cannot use s3://"):
        open_storage("s3://")
    with pytest.raises(UserError, match=r"^cannot use gopher://hole: .*; give a path, s3://… or gs://…$"):
        open_storage("gopher://hole")


def test_files(storage: Storage) -> None:
    assert storage.names() == []
    with pytest.raises(FileNotFoundError):
        storage.read("a")
    storage.write("a", b"one")
    storage.write("a", b"two")
    storage.write("deep/down/b", b"")
    assert storage.read("a") == b"two"
    assert storage.within("deep").read("down/b") == b""
    assert storage.names() == ["a", "deep"]
    assert storage.within("deep").names() == ["down"]
    for name in ("a", "deep", "never there"):
        storage.remove(name)
    assert "a" not in storage.names()
    assert storage.within("deep/down").names() == []


def test_a_part_of_a_file(storage: Storage) -> None:
    storage.write("a", b"0123456789")
    with storage.open("a") as file:
        assert file.seek(0, os.SEEK_END) == 10
        file.seek(3)
        assert file.read(4) == b"3456"
    with pytest.raises(FileNotFoundError):
        storage.open("b")


def test_a_directory_takes_the_place_of_another(storage: Storage) -> None:
    for files in ({"x": b"1", "sum": b"1"}, {"x": b"2", "sum": b"2"}):
        storage.write_directory("d", files)
        assert {name: storage.read(f"d/{name}") for name in storage.within("d").names()} == files


def test_a_file_that_grows(storage: Storage) -> None:
    storage.append("log", 0, b"one\n")
    storage.append("log", 4, b"two\n")
    storage.append("log", 4, b"two\n")  # tried again
    assert storage.read("log") == b"one\ntwo\n"
    storage.append("log", 4, b"3\n")
    assert storage.read("log") == b"one\n3\n"


def test_a_file_grows_on_after_a_new_start(storage: Storage) -> None:
    storage.write("log", b"one\ntwo\n")
    again = open_storage(str(storage))
    again.append("log", 4, b"2\n")
    assert again.read("log") == b"one\n2\n"


def test_a_file_that_grows_long_is_cut_anywhere_and_grows_on(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner.keeping.storage, "_PART_BYTES", 8)
    expected = b""
    for number in range(8):
        storage.append("log", len(expected), b"row %d\n" % number)
        expected += b"row %d\n" % number
    assert storage.read_grown("log") == expected
    assert storage.names() == (["log"] if isinstance(storage, Disk) else ["log", "log.0001", "log.0002", "log.0003"])
    for writer, at in ((storage, 48), (open_storage(str(storage)), 30), (open_storage(str(storage)), 6)):
        for _ in range(2):  # tried again
            writer.append("log", at, b"another\n")
        expected = expected[:at] + b"another\n"
        assert open_storage(str(storage)).read_grown("log") == expected
        writer.append("log", len(expected), b"end\n")
        expected += b"end\n"
        assert open_storage(str(storage)).read_grown("log") == expected


def test_checkpoints(storage: Storage) -> None:
    for number in (1, 2, 3):
        save_checkpoint(storage, number, {}, {"number": number}, keep=2)
    assert storage.names() == ["00000002", "00000003"]
    storage.remove("00000003/state.safetensors.sha256")  # its writer was killed
    assert load_checkpoint(storage)[1] == {"number": 2}


def test_nothing_there(s3: Link) -> None:
    with pytest.raises(UserError, match=r"no run in s3://bucket/nothing: config\.json is missing"):
        RunDirectory("s3://bucket/nothing").config()
    with pytest.raises(UserError, match="no readable checkpoint under s3://bucket/nothing: there is none"):
        load_checkpoint(open_storage("s3://bucket/nothing"))
    with pytest.raises(UserError, match=r"cannot write to s3://no-such-bucket/run: .*bucket"):
        Trainer(cartpole(), "s3://no-such-bucket/run").run()


class Away(Callback):
    """Takes the store away after an update, gives it back after a later one, and then ends the run."""

    def __init__(self, link: Link, trouble: str) -> None:
        self._link, self._trouble = link, trouble
        self.seconds = self.unsaved = self._since = self._until = 0.0

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        update = metrics["train/n_updates"]
        if update == 5:
            self._link.mode, self._since = self._trouble, time.monotonic()
        elif update >= 40 and not self._until and (trainer.recorder.failures or self._trouble == "stalled"):
            self.seconds, self._until = time.monotonic() - self._since, update + 10
            self.unsaved = trainer.recorder.unsaved_seconds
            self._link.mode = "open"
        elif self._until and update > self._until:
            trainer.stop("seen enough")


@pytest.mark.usefixtures("kept_processes")
@pytest.mark.parametrize("trouble", ["cut", "stalled"])
def test_training_goes_on_while_the_store_is_away(s3: Link, caplog: pytest.LogCaptureFixture, trouble: str) -> None:
    """Cut off, or without an answer: when it is back all is written, and the run can be resumed from it."""
    location = f"s3://bucket/runs/{trouble}"
    only_updates = {"eval_every": None}  # each has a row of the log, and nothing else has
    stop = {"total_timesteps": None, "max_seconds": 240}
    checkpoint = {"checkpoint_seconds": 0.1, "upload_seconds": 0.0}
    config = cartpole(stop=stop, checkpoint=checkpoint, evaluation=only_updates)
    away = Away(s3, trouble)
    try:
        with caplog.at_level(logging.INFO, "touchdown"):
            result = Trainer(config, location, callbacks=[away]).run()
    finally:
        s3.mode = "open"
    assert result.reason == "seen enough"
    assert away.unsaved >= away.seconds > 0
    if trouble == "cut":
        assert f"cannot write to {location} (" in caplog.text
        assert f"writing to {location} again after" in caplog.text
    storage = open_storage(location)
    assert len(storage.read("metrics.jsonl").splitlines()) == result.policy.spec.version
    assert find_policy(location).spec.version == result.policy.spec.version
    assert any(name.startswith("events.out.tfevents.") for name in storage.names())
    longer = cartpole(stop={"total_timesteps": result.counters.total_timesteps + 3_000}, evaluation=only_updates)
    resumed = Trainer(longer, location, resume=True).run()
    assert resumed.policy.spec.version > result.policy.spec.version
    assert len(storage.read("metrics.jsonl").splitlines()) == resumed.policy.spec.version


@pytest.mark.usefixtures("kept_processes")
def test_an_object_store_is_written_to_once_an_interval(s3: Link) -> None:
    """Each of log, policy and checkpoint: once at the beginning, once at the end, and not in between."""

    def stop(trainer: Trainer) -> None:
        trainer.stop("seen enough")

    stop_at = {"total_timesteps": None, "max_seconds": 240}
    config = cartpole(stop=stop_at, checkpoint={"checkpoint_seconds": 0.0}, evaluation={"eval_every": None})
    before = s3.puts
    result = Trainer(config, "s3://bucket/runs/sparing", callbacks=[Act(60, stop)]).run()
    storage = open_storage("s3://bucket/runs/sparing")
    assert len(storage.read_grown("metrics.jsonl").splitlines()) == result.policy.spec.version >= 60
    assert load_checkpoint(storage.within("checkpoints"))[0]["version"] == result.policy.spec.version
    assert s3.puts - before < 30


def test_object_stores_are_pyarrows(s3: Link) -> None:
    assert isinstance(open_storage("s3://bucket/x"), ObjectStore)
