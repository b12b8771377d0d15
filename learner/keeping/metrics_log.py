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

_AT_FULL = 20_000
"""Rows after which only every second is kept, then every fourth, and so on: a week's log fits on a disk."""


class MetricsLog:
    """metrics.jsonl and TensorBoard events: one row an update, of a long run one every 2ⁿ updates, each evaluation, and
    the last before each mark. ``flush`` writes them; until then rows are kept.

    Args:
        storage: the run's directory.
        timesteps: rows beyond this step are dropped first: they are of updates that a resume makes again.
        options: of the run, by name, for TensorBoard's table of hyper-parameters; None: it is in no such table.
    """

    def __init__(self, storage: Storage, timesteps: int, options: dict[str, Any] | None = None) -> None:
        self._storage, self._options = storage, options
        names = storage.names()
        written = storage.read_grown(_ROWS) if _ROWS in names else b""
        kept = [row for row in _rows(written) if row["time/total_timesteps"] <= timesteps]
        text = "".join(json.dumps(row) + "\n" for row in kept).encode()
        if written != text:
            same = written.startswith(text)
            storage.append(_ROWS, len(text) if same else 0, b"" if same else text)
        part = sum(name.startswith("events.out.tfevents.") for name in names)
        # Two files of one second would have one name, but for the part.
        events = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{part:03d}"
        self._lines, self._events = _Tail(_ROWS, len(text)), _Tail(events, 0)
        self._rows, self._passed_over = len(kept), 0
        self._last: dict[str, float] | None = None
        """The last row, if it was passed over."""
        self._mark, self._mark_steps, self._mark_rows = len(text), timesteps, len(kept)
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
        from learner.keeping.tensorboard_events import hyperparameters, session_start  # a moment's import

        if not self._events.at and not self._events.data:
            self._events.data += session_start(self._mark_steps + 1 if self._goes_on else None)
            if self._options:
                self._events.data += hyperparameters(self._options)
        while self._done:
            event = self._done.popleft()
            if event == "mark":
                if self._last:
                    self._keep(self._last)
                self._mark, self._mark_steps, self._mark_rows = self._lines.end, self._steps, self._rows
            elif event == "rewind":
                self._lines.cut(self._mark)
                self._steps, self._rows = self._mark_steps, self._mark_rows
                self._passed_over, self._last = 0, None
                self._events.data += session_start(self._mark_steps + 1)
            elif self._passed_over + 1 < 2 ** (self._rows // _AT_FULL) and not any(map(_is_of_evaluation, event)):
                self._passed_over, self._last = self._passed_over + 1, event
            else:
                self._keep(event)
        for tail in (self._lines, self._events):
            tail.write(self._storage)

    def _keep(self, row: dict[str, float]) -> None:
        from learner.keeping.tensorboard_events import scalars

        self._rows, self._passed_over, self._last = self._rows + 1, 0, None
        self._steps = int(row["time/total_timesteps"])
        self._lines.data += json.dumps(row).encode() + b"\n"
        self._events.data += scalars(row, self._steps)


def _is_of_evaluation(name: str) -> bool:
    return name.startswith("eval/")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a crash cut short is left out."""
    return _rows(path.read_bytes()) if path.exists() else []


def read_rows(storage: Storage) -> list[dict[str, Any]]:
    """The rows of the run that is kept there, as ``read_metrics`` gives them.

    Raises:
        OSError: they cannot be read.
    """
    try:
        return _rows(storage.read_grown(_ROWS))
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
