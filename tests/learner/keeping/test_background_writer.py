"""The thread that writes a run's files."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from learner.keeping.background_writer import BackgroundWriter
from tests.serve.served import PATIENCE, wait_for


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundWriter]:
    monkeypatch.setattr("learner.keeping.background_writer._FIRST_PAUSE", 0.01)
    writer = BackgroundWriter("here")
    yield writer
    writer.close()


def test_who_waits_for_all_to_be_written_does_not_wait_for_a_jobs_turn(
    writer: BackgroundWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job's first writing and the end of a run during it: the last writing follows at once."""
    monkeypatch.setattr("learner.keeping.background_writer._SHARE", 1e-9)  # the job's next turn comes after years
    began = threading.Event()
    written: list[int] = []

    def first() -> None:
        began.set()
        wait_for(lambda: writer._flushing)
        written.append(1)

    writer.submit("checkpoint", first)
    assert began.wait(PATIENCE)
    writer.submit("checkpoint", lambda: written.append(2))
    writer.flush(PATIENCE)
    assert written == [1, 2]


def test_storage_that_stood_still_once_is_soon_written_to_again(
    writer: BackgroundWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write that took half a minute, the share alone would have the next wait for minutes."""
    monkeypatch.setattr(
        "learner.keeping.background_writer._SHARE", 1e-4
    )  # the next turn of 0.2 s comes in half an hour
    written: list[float] = []

    def write(seconds: float) -> None:
        time.sleep(seconds)
        written.append(seconds)

    for count, seconds in enumerate((0.0, 0.2, 0.0), 1):
        writer.submit("metrics", lambda seconds=seconds: write(seconds))  # type: ignore[misc]
        wait_for(lambda count=count: len(written) == count, "it is written")  # type: ignore[misc]


def test_what_fails_is_tried_again_and_the_log_says_so_once(
    writer: BackgroundWriter, caplog: pytest.LogCaptureFixture
) -> None:
    left = [OSError("full"), OSError("still full"), OSError("full yet")]

    def write() -> None:
        if left:
            raise left.pop()

    with caplog.at_level(logging.INFO, "touchdown"):
        writer.submit("checkpoint", write)
        writer.flush(PATIENCE)
    assert not left
    assert writer.failures == 3
    failed, again = (record.getMessage() for record in caplog.records)
    assert failed == "cannot write to here (full yet); training goes on, writing is tried again"
    assert again.startswith("writing to here again after ")


def test_only_the_newest_of_a_name_is_written(writer: BackgroundWriter) -> None:
    fails = threading.Event()
    written: list[int] = []

    def old() -> None:
        fails.set()
        raise OSError("full")

    writer.submit("policy", old)
    assert fails.wait(PATIENCE)
    for number in (2, 3):
        writer.submit("policy", lambda number=number: written.append(number))
    writer.submit("metrics", lambda: written.append(0))
    writer.flush(PATIENCE)
    assert 3 in written
    assert 0 in written
    assert len(written) <= 3


def test_who_waits_at_the_end_does_not_wait_out_a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.keeping.background_writer._FIRST_PAUSE", 3600.0)
    full = [OSError("full")]

    def write() -> None:
        if full:
            raise full.pop()

    writer = BackgroundWriter("here")
    writer.submit("checkpoint", write)
    wait_for(lambda: writer.failures)
    monkeypatch.setattr(
        "learner.keeping.background_writer._FIRST_PAUSE", 0.01
    )  # of who has not begun the long one by the flush
    writer.flush(PATIENCE)
    writer.close()


def test_patience_ends_with_the_reason(writer: BackgroundWriter) -> None:
    def write() -> None:
        raise OSError("full")

    writer.submit("checkpoint", write)
    wait_for(lambda: writer.failures > 1)  # the reason of the first failure is known
    with pytest.raises(OSError, match="full"):
        writer.flush(patience=0.2)


def test_a_storage_that_does_not_answer_is_not_waited_for_for_ever(writer: BackgroundWriter) -> None:
    answer = threading.Event()
    writer.submit("checkpoint", lambda: assert_true(answer.wait(PATIENCE)))
    with pytest.raises(TimeoutError, match="here did not answer"):
        writer.flush(patience=0.2)
    answer.set()
    writer.flush(PATIENCE)


def assert_true(value: object) -> None:
    assert value


def test_a_mistake_of_ours_ends_the_run(writer: BackgroundWriter) -> None:
    def write() -> None:
        raise ZeroDivisionError

    writer.submit("metrics", write)
    with pytest.raises(ZeroDivisionError):
        writer.flush(PATIENCE)
    with pytest.raises(ZeroDivisionError):
        writer.submit("metrics", write)


def test_a_write_that_takes_long_is_worth_a_line(
    writer: BackgroundWriter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.keeping.background_writer._LONG_SECONDS", 0.0)
    began, answer = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert answer.wait(PATIENCE)

    writer.submit("checkpoint", slow)
    assert began.wait(PATIENCE)
    writer.submit("metrics", lambda: None)
    answer.set()
    writer.flush(PATIENCE)
    assert "writing to here takes long; training goes on" in caplog.text
