"""When all is well: the run learns, all its actors fly, and what is served is newer than when the fault struck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.cluster.soak.load import Request

_UPDATES = 5
"""Of a run that learns again, after those that it had."""
_ANSWERS = 10
"""The last so many requests were answered."""


def lacking(
    rows: Sequence[dict[str, Any]], requests: Sequence[Request], updates: int, version: int, actors: int
) -> str:
    """What is not well yet, in words; empty: all is.

    Args:
        rows: of the run's log, now.
        requests: of the load, until now.
        updates: that the run had when the fault struck.
        version: that was served then.
        actors: that it should have.
    """
    if len(rows) < updates + _UPDATES:
        return f"the run is at update {len(rows)}, and was at {updates}"
    if rows[-1]["rollout/actors"] != actors:
        return f"{rows[-1]['rollout/actors']:g} actors fly of {actors}"
    last = requests[-_ANSWERS:]
    if len(last) < _ANSWERS or any(request.version < 0 for request in last):
        return "requests fail"
    if last[-1].version <= version:
        return f"version {last[-1].version} is served, as then"
    return ""
