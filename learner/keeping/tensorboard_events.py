"""TensorBoard's event files, record by record: an update is one event, whatever the number of its figures.

A record is its length, that length's checksum, the event, its checksum (TFRecord).
"""

from __future__ import annotations

import struct
import time
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DataType
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

_SHOWN = ("rollout/ep_rew_mean", "eval/mean_reward", "rollout/best_ep_rew_mean", "time/fps")
"""Columns of the log in the table of hyper-parameters: returns first."""


def scalars(row: dict[str, float], step: int) -> bytes:
    """The figures of a step."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
    return _record(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def hyperparameters(options: dict[str, Any]) -> bytes:
    """A run's options, for TensorBoard's table of hyper-parameters, and the figures that it shows beside them.

    Args:
        options: numbers, truths and texts by name; what else there is becomes text.
    """
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in options.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in _SHOWN]
    experiment = api_pb2.Experiment(metric_infos=metrics, time_created_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData
    values = [
        _for_hparams(metadata.EXPERIMENT_TAG, data(experiment=experiment)),
        _for_hparams(metadata.SESSION_START_INFO_TAG, data(session_start_info=start)),
    ]
    return _record(Event(wall_time=time.time(), summary=Summary(value=values)))


def _for_hparams(tag: str, content: Any) -> Summary.Value:
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    nothing = TensorProto(dtype=DataType.DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=nothing)


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
