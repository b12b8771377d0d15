"""A server with nothing but what can be watched, in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fastapi
import uvicorn

from actors.policy import Policy
from serve.policies import Policies
from serve.watch import watch_router


def saved(directory: Path, policies: Mapping[str, Policy]) -> Policies:
    """Policies by name, served from ``directory``."""
    for name, policy in policies.items():
        policy.save(directory / name)
    return Policies({name: directory / name for name in policies})


@contextlib.contextmanager
def served(policies: Policies, most_viewers: int = 64, token: str | None = None, port: int = 0) -> Iterator[str]:
    """Run a server; gives its address, such as ``127.0.0.1:1234``."""
    app: Any = fastapi.FastAPI()

    @app.get("/policies")
    async def list_policies() -> dict[str, Any]:
        return {"policies": [policy.summary() for policy in policies.values()]}

    app.include_router(watch_router(policies, most_viewers))
    if token:
        from serve.gate import Gate
        from serve.tokens import digest

        app = Gate(app, digest(token))
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the server starts")
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server stops while flights are being watched"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until a condition holds; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.02)
    return value
