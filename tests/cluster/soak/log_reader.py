"""Reads a log that grows in an object store again and again, and of what is full only once."""

from __future__ import annotations

import json
from typing import Any

from learner.keeping.storage import Storage

_UNSETTLED = 2
"""Last parts of a log that a run which goes back may cut."""


class LogReader:
    """The rows of metrics.jsonl in a run's storage that are updates; others are evaluations.

    Args:
        storage: of the run, which keeps the log in parts of whole lines.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._parts: dict[str, list[dict[str, Any]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """All rows now; none: there is no log yet.

        Raises:
            OSError: the store does not answer, or a part went while it was read.
        """
        names = sorted(name for name in self._storage.names() if name.startswith("metrics.jsonl"))
        self._parts = {name: rows for name, rows in self._parts.items() if name in names[:-_UNSETTLED]}
        rows = []
        for name in names:
            part = self._parts.get(name)
            if part is None:
                part = [json.loads(line) for line in self._storage.read(name).splitlines()]
                part = [row for row in part if "train/n_updates" in row]
            if name in names[:-_UNSETTLED]:
                self._parts[name] = part
            rows += part
        return rows
