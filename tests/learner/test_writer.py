"""The thread that writes a run's files."""

from __future__ import annotations

import threading

from learner.writer import Writer


def test_who_waits_for_all_to_be_written_does_not_wait_for_a_jobs_turn() -> None:
    """Of a job's long first writing and the end of a run during it: the last writing follows at once."""
    began, go_on = threading.Event(), threading.Event()
    written: list[int] = []

    def first() -> None:
        began.set()
        assert go_on.wait(10)
        written.append(1)

    writer = Writer("here")
    writer.submit("checkpoint", first)
    assert began.wait(10)
    writer.submit("checkpoint", lambda: written.append(2))
    threading.Timer(1.0, go_on.set).start()
    writer.flush(patience=6.0)  # a job of one second may otherwise run again after nine
    writer.close()
    assert written == [1, 2]
