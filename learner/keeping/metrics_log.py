"""The log of a run's metrics: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import socket
import time
from pathlib import Path
from typing import Any, Literal

from learner.keeping.storage import Storage

_ROWS = "metrics.jsonl"


class MetricsLog:
    """metrics.jsonl and TensorBoard events: one row an update. ``flush`` writes them; until then rows are kept.

    Args:
        storage: the run's directory.
        timesteps: rows beyond this step are dropped first: they are of updates that a resume makes again.
        options: of the run, by name, for TensorBoard's table of hyper-parameters; None: it is in no such table.
    """

    def __init__(self, storage: Storage, timesteps: int, options: dict[str, Any] | None = None) -> None:
        self._storage, self._options = storage, options
        names = storage.names()
        kept = _rows(storage.read(_ROWS)) if _ROWS in names else []
        text = "".join(json.dumps(row) + "\n" for row in kept if row["time/total_timesteps"] <= timesteps).encode()
        if _ROWS in names:
            storage.write(_ROWS, text)
        part = sum(name.startswith("events.out.tfevents.") for name in names)
        # Two files of one second would have one name, but for the part.
        events = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{part:03d}"
        self._lines, self._events = _Tail(_ROWS, len(text)), _Tail(events, 0)
        self._mark, self._mark_steps = len(text), timesteps
        self._steps = timesteps
        self._done: collections.deque[dict[str, float] | Literal["mark", "rewind"]] = collections.deque()
        """What has happened since the last flush, in order."""
        self._goes_on = part > 0

    def write(self, row: dict[str, float]) -> None:
        """Add a row; figures that are not known yet (NaN) are left out."""
        self._done.append({name: value for name, value in row.items() if math.isfinite(value)})

    def mark(self) -> None:
        """Remember this place."""
        self._done.append("mark")

    def rewind(self) -> None:
        """Go back to the last mark, or to where the log was opened: the learner went back to a checkpoint."""
        self._done.append("rewind")

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            OSError: that failed; nothing is lost, the next flush tries again.
        """
        from learner.keeping.tensorboard_events import hyperparameters, scalars, session_start  # a moment's import

        if not self._events.at and not self._events.data:
            self._events.data += session_start(self._mark_steps + 1 if self._goes_on else None)
            if self._options:
                self._events.data += hyperparameters(self._options)
        while self._done:
            event = self._done.popleft()
            if event == "mark":
                self._mark, self._mark_steps = self._lines.end, self._steps
            elif event == "rewind":
                self._lines.cut(self._mark)
                self._steps = self._mark_steps
                self._events.data += session_start(self._mark_steps + 1)
            else:
                self._steps = int(event["time/total_timesteps"])
                self._lines.data += json.dumps(event).encode() + b"\n"
                self._events.data += scalars(event, self._steps)
        for tail in (self._lines, self._events):
            tail.write(self._storage)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a crash cut short is left out."""
    return _rows(path.read_bytes()) if path.exists() else []


def read_rows(storage: Storage) -> list[dict[str, Any]]:
    """The rows of the run that is kept there, as ``read_metrics`` gives them.

    Raises:
        OSError: they cannot be read.
    """
    try:
        return _rows(storage.read(_ROWS))
    except FileNotFoundError:
        return []


def _rows(content: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if isinstance(row, dict):
            rows.append(row)
    return rows


@dataclasses.dataclass
class _Tail:
    """The end of a file that grows: ``data`` belongs at byte ``at`` and may not have been written yet."""

    name: str
    at: int
    data: bytearray = dataclasses.field(default_factory=bytearray)
    is_cut: bool = False

    @property
    def end(self) -> int:
        return self.at + len(self.data)

    def cut(self, end: int) -> None:
        """Let the file end at this byte."""
        del self.data[max(0, end - self.at) :]
        self.is_cut |= end < self.at
        self.at = min(self.at, end)

    def write(self, storage: Storage) -> None:
        if self.data or self.is_cut:
            storage.append(self.name, self.at, bytes(self.data))
            self.at, self.is_cut = self.end, False
            self.data.clear()
