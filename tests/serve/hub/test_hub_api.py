"""The Hub's errors in one line each; tests of publish and pull hold the rest against a Hub of their own."""

from __future__ import annotations

import pytest

from serve.hub.hub_api import hub_errors


def test_what_a_server_says_reaches_no_terminal() -> None:
    with pytest.raises(OSError, match=r"\\x1b\[2J") as told, hub_errors("stranger/policy"):
        raise RuntimeError("\x1b[2J\ngone")
    assert str(told.value).isprintable()
