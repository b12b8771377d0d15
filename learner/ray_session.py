"""Ray, joined or started: once a process, and never by accident."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray


def start_ray(**own: Any) -> None:
    """Join the cluster that RAY_ADDRESS names ("auto": the one on this machine), or start one of this process; once.

    Not ``ray.init()``'s own rule, which joins whatever cluster another process has left on this machine.

    Args:
        own: more arguments of ``ray.init`` for a cluster of this process's own.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: a second thread costs more than it brings
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of a failed rollout we read the report, not the batch
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {"include_dashboard": False, **own} if address == "local" else {}
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **local)
