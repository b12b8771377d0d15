from __future__ import annotations

import logging

import pytest

import actors.waiting
from actors.waiting import Waiting


def test_a_wait_is_told_when_it_is_long_when_it_changes_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "touchdown")
    now = 1000.0
    monkeypatch.setattr(actors.waiting.time, "monotonic", lambda: now)
    waiting = Waiting()
    told = []
    for seconds, what in [(0, "a"), (16, "a"), (16, "a"), (601, "a"), (1, "b"), (1, ""), (1, "b"), (16, "b"), (1, "")]:
        now += seconds
        waiting.look(what)
        told.append(caplog.messages.copy())
        caplog.clear()
    still_a, still_b = ["still waiting for a"], ["still waiting for b"]
    assert told == [[], still_a, [], still_a, [], [], [], still_b, ["no longer waiting for b"]]
