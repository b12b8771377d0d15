"""HAProxy in front of the replicas: the variables that Ray's processes must start with, on every node.

``eval "$(python -m serve.fast_ingress)"`` sets them in a shell, before ``ray start``.

Ray Serve as it comes sends each request through a Python proxy and answers some hundreds a second; with these HAProxy
leads it to the replica, which answers thousands.
"""

from __future__ import annotations

import os
import resource
import shlex
import socket
from typing import NamedTuple

import ray

from learner.ray_session import start_ray

_MOST_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
_FILES_PER_CONNECTION = 2.52
"""That HAProxy asks for: one to the client, one to a replica, and some over."""

VARIABLES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.replica.shortcut",
    # Every POST here is a pure function: one whose replica died is safe to send again.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # Ends connections that send nothing. A page that is open answers pings far more often.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # HAProxy keeps connections to replicas only while it uses less than a fifth of the files that it may open, and does
    # not start if it may not open as many as it wants.
    "RAY_SERVE_HAPROXY_MAXCONN": str(
        16_384 if _MOST_FILES == resource.RLIM_INFINITY else min(16_384, int(_MOST_FILES / _FILES_PER_CONNECTION))
    ),
    # A replica that is very busy answers late. Taken for dead, all its requests would go through Serve's slow proxy; of
    # one that is dead connections fail at once, and are tried again at another.
    "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "0",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "5",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "2s",
    # uvloop accepts one connection in each turn of its loop: when more clients come than a replica can serve, some
    # would wait for ever. asyncio accepts all that have come.
    "RAY_USE_UVLOOP": "0",
}


def missing() -> list[str]:
    """Which of the variables this process lacks."""
    return [name for name, value in VARIABLES.items() if os.environ.get(name) != value]


def advice() -> str | None:
    """What to say of a cluster that was started without them; None: it has them."""
    lacking = ray.get(ray.remote(missing).options(num_cpus=0).remote())
    if not lacking:
        return None
    return (
        f"this cluster was started without {', '.join(lacking)} and answers slowly; "
        'on every node, before ray start: eval "$(python -m serve.fast_ingress)"'
    )


class OwnRay(NamedTuple):
    """A Ray of this process's own."""

    metrics: str
    """Where Prometheus finds its metrics."""
    logs: str
    """The directory of its logs, the access log among them."""


def start_own_ray() -> OwnRay:
    """Start Ray with HAProxy, on this machine's loopback address. Call it before ``ray.serve`` is imported."""
    metrics = free_port()
    os.environ |= VARIABLES
    for name in ("METRICS_PORT", "STATS_PORT"):
        os.environ.setdefault(f"RAY_SERVE_HAPROXY_{name}", str(free_port()))
    os.environ.setdefault("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", str(free_port()))
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "2")  # HAProxy is beside the replicas
    start_ray(_node_ip_address="127.0.0.1", _metrics_export_port=metrics)
    session = ray.get_runtime_context().get_session_name()
    return OwnRay(f"http://127.0.0.1:{metrics}/metrics", f"/tmp/ray/{session}/logs")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    for name, value in VARIABLES.items():
        print(f"export {name}={shlex.quote(value)}")
