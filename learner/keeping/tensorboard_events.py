"""TensorBoard's event files, record by record: an update is one event, whatever the number of its figures.

A record is its length, that length's checksum, the event, its checksum (TFRecord).
"""

from __future__ import annotations

import struct
import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c


def scalars(row: dict[str, float], step: int) -> bytes:
    """The figures of a step."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
    return _record(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def session_start(step: int | None) -> bytes:
    """How a file begins. With ``step``: TensorBoard shall forget what it has from there on."""
    start = _record(Event(wall_time=time.time(), file_version="brain.Event:2"))
    if step is None:
        return start
    return start + _record(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))


def _record(event: Event) -> bytes:
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))
