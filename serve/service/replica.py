"""A Ray Serve replica: the thin shell around the service.

Serve keeps replicas alive, scales and drains them, and puts HAProxy in front. On its way through a replica a request
passes Serve's bookkeeping, which takes several times as long as answering it; ``shortcut``, Serve's hook for ASGI
middleware, takes requests to the service at once. HAProxy counts them for Serve's metrics all the same; what replicas
are scaled by we report ourselves. Without HAProxy everything goes Serve's own way, and works.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingContext
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.service.http import Service
from serve.service.meters import Busy
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig

BUSY_TARGET = 0.6
"""Share of a core that replicas are to be busy, in the mean; above it more are started, below it some are ended."""

_services: list[Service] = []
"""The services of this process: one in a replica, none elsewhere."""


class Shortcut:
    """Takes a request to this process's service, past Serve's own bookkeeping. Serve's own paths stay Serve's."""

    def __init__(self, app: ASGIApp) -> None:
        self._serves_own = app
        self._listening = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._listening:  # the first is a health check of HAProxy's
            self._listening = True
            send_without_delay()
        if _services and scope["type"] != "lifespan" and not scope["path"].startswith("/-/"):
            await _services[0](scope, receive, send)
        else:
            await self._serves_own(scope, receive, send)


def send_without_delay() -> None:
    """Set TCP_NODELAY on this process's listening sockets, whose connections inherit it.

    asyncio sets it only on sockets that were made for TCP by number, which Serve's is not; without it an answer, of
    which uvicorn sends head and body apart, waits 40 ms for the other side to acknowledge the head.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family != socket.AF_UNIX and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def shortcut() -> list[Middleware]:
    """Middlewares of Ray Serve's proxy, which RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH leads to."""
    return [Middleware(Shortcut)]


@serve.ingress()
class Touchdown:
    """One replica.

    Args:
        sources: the policies' directories by name, which every node can read.
        config: limits of the service.
        token_digest: of the bearer token; None: none is asked for.
        follow: look for newer policies.
        modules: those that may be imported for an environment.
        record: the dataset that keeps what people fly; None: nothing does.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        config: HttpConfig,
        token_digest: bytes | None,
        follow: bool,
        modules: tuple[str, ...] = (),
        record: str | None = None,
    ) -> None:
        self._service = Service(Policies(sources, modules), config, token_digest, follow, record)
        self._busy = Busy()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        _services[:] = [self._service]
        return self._service

    async def reconfigure(self, _user_config: Any) -> None:
        """A changed ``user_config`` in a Serve config file: look for newer policies now, without a restart."""
        await self._service.refresh()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What ``enough_replicas`` decides by."""
        return {"busy": self._busy.share()}


def enough_replicas(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """As many replicas as keep each at BUSY_TARGET of a core.

    Not by requests under way, as Serve's own policy does: an answer takes a tenth of a millisecond, so that even a
    replica which is full has few of them.
    """
    busy = (context.aggregated_metrics or {}).get("busy", {})
    if not busy:
        return context.target_num_replicas, {}
    return max(1, math.ceil(sum(busy.values()) / BUSY_TARGET - 0.1)), {}
