"""The service on a real socket, without Ray: for tests of what it answers."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from actors.environments import describe
from actors.policy import Policy
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from tests.actors.examples import policy_for

LANDER = [0.0, 1.4, 0.1, -0.4, 0.0, 0.0, 0.0, 0.0]
PATIENCE = 120.0
"""Seconds after which a test gives up; none waits for them to pass."""
PATIENT: dict[str, Any] = {"timeout": PATIENCE, "patience": PATIENCE}
"""A client that a busy machine does not make ask twice."""


def wait_for(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE, every: float = 0.02) -> Any:
    """Wait until a condition holds, looking so often; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(every)
    return value


def save(policy: Policy, directory: Path, version: int = 0) -> Path:
    """A policy of that version in a directory."""
    Policy(dataclasses.replace(policy.spec, version=version), policy.weights).save(directory)
    return directory


def valued(env_id: str, *values: float, epsilon: float = 0.1) -> Policy:
    """A policy that expects the same of each action whatever it sees, and goes by that."""
    spec = describe(env_id).policy_spec(hidden_sizes=(), distribution="epsilon_greedy")
    weights = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    return Policy(spec, weights | {"b0": np.array(values, np.float32), "epsilon": np.array([epsilon], np.float32)})


@contextlib.contextmanager
def running(app: object, port: int = 0) -> Iterator[str]:
    """An ASGI application on a port, 0: a free one, in a thread; its address."""
    patient: dict[str, Any] = {"timeout_keep_alive": 600, "ws_ping_interval": None}
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", **patient)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), "the server starts")
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server stops, whatever it is doing"


@contextlib.contextmanager
def serving(tmp_path: Path, follow: bool = False, token_digest: bytes | None = None, **config: object) -> Iterator[str]:
    """Policies ``lander``, the first, and ``pendulum``, whose actions are continuous."""
    sources = {
        "lander": save(policy_for("LunarLander-v3"), tmp_path / "lander", version=7),
        "pendulum": save(policy_for("Pendulum-v1"), tmp_path / "pendulum"),
    }
    limits = HttpConfig(access_log=False, **({"body_seconds": PATIENCE} | config))  # type: ignore[arg-type]
    with running(Service(Policies(sources), limits, token_digest, follow)) as address:
        yield address
