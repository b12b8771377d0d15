"""HAProxy in front of the replicas: the variables that Ray's processes must start with, on every node.

``eval "$(python -m serve.fast_ingress)"`` sets them in a shell, before ``ray start``.

Ray Serve as it comes sends each request through a Python proxy and answers some hundreds a second; with these HAProxy
leads it to the replica, which answers thousands.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import socket
import sysconfig
from pathlib import Path
from typing import NamedTuple

import ray

from actors.errors import UserError
from learner.run.ray_session import start_ray

_MOST_CONNECTIONS = 16_384


def _connections() -> int:
    """How many connections HAProxy may keep with the files that a process may open here, or it does not start.

    It takes two and a half for each, and some that are its own.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, int((files - 100) / 2.5))


def _installed(program: str) -> str:
    """Where pip has put a program of ours: beside Python, or elsewhere on the PATH."""
    beside = sysconfig.get_path("scripts")
    return shutil.which(program, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}") or f"{beside}/{program}"


VARIABLES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.service.replica.shortcut",
    # Ours, which closes it to other users and starts the real one: see haproxy.py.
    "RAY_SERVE_HAPROXY_BINARY_PATH": _installed("touchdown-haproxy"),
    # Every POST here is a pure function: one whose replica died is safe to send again.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # Ends connections that send nothing. A page that is open answers pings far more often.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # HAProxy keeps connections to replicas only while it uses less than a fifth of the files that it may open.
    "RAY_SERVE_HAPROXY_MAXCONN": str(_connections()),
    # A replica that is very busy answers late. Taken for dead, all its requests would go through Serve's slow proxy; of
    # one that is dead connections fail at once, and are tried again at another.
    "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "0",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "5",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "2s",
    # Ray starts HAProxy again when three of its checks have failed, or when it is not up in time.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # HAProxy hears within a second of a replica that ends. Ray waits for half a minute, for slower ones; and Docker
    # kills after as long.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # uvloop accepts one connection in each turn of its loop: when more clients come than a replica can serve, some
    # would wait for ever. asyncio accepts all that have come.
    "RAY_USE_UVLOOP": "0",
}


def places(directory: Path) -> dict[str, str]:
    """The variables that put HAProxy's configuration, sockets and state into a directory, which is its user's alone."""
    files = {
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin.sock",
        "METRICS_SOCKET_PATH": "metrics.sock",
        "SERVER_STATE_FILE": "server-state",
        "SERVER_STATE_BASE": "",
    }
    return {f"RAY_SERVE_HAPROXY_{name}": str(directory / file) for name, file in files.items()}


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


def start_own_ray(directory: Path) -> OwnRay:
    """Start Ray with HAProxy, on this machine's loopback address. Call it before ``ray.serve`` is imported.

    Args:
        directory: for HAProxy's sockets and configuration, this user's alone.

    Raises:
        UserError: our program for HAProxy is not installed.
    """
    program = VARIABLES["RAY_SERVE_HAPROXY_BINARY_PATH"]
    if not os.access(program, os.X_OK):
        raise UserError(f"there is no {program}: install Touchdown anew, with pip install -e . or make venv")
    metrics = free_port()
    os.environ |= VARIABLES | places(directory)
    os.environ.setdefault("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", str(free_port()))
    start_ray(_node_ip_address="127.0.0.1", _metrics_export_port=metrics)
    session = ray.get_runtime_context().get_session_name()
    return OwnRay(f"http://127.0.0.1:{metrics}/metrics", f"/tmp/ray/{session}/logs")


def free_port() -> int:
    """A port that nobody uses now, nor is given while its user starts: of those that are for who asks by number."""
    while True:
        port = random.randrange(20_000, 30_000)  # Ray's workers have those below, its replicas those above
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
