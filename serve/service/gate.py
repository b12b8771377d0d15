"""Who may come in: a bearer token for HTTP and WebSocket alike, and no WebSocket from a page of another origin.

Browsers cannot set headers on a WebSocket; they offer the token as a subprotocol, ``bearer.<base64url of the token>``.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import http
import ipaddress
import re
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.service.haproxy import UNREAD, UNREAD_HEADER
from serve.service.protocol import Problem, problem_body
from serve.service.tokens import TOKEN_VARIABLE

_OPEN = ("/", "/healthz", "/docs", "/openapi.json")
_OPEN_FOLDERS = ("/page/", "/static-offline-docs/")
"""Paths that need no token: what they answer tells nothing of the policies."""
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?", re.ASCII | re.IGNORECASE)


class Gate:
    """Lets a request pass to ``app`` or answers it here.

    Args:
        app: behind the gate.
        token_digest: of the token that is asked for; None: none is.
        origins: pages that may open a WebSocket beside our own, such as ``https://example.org``.
    """

    def __init__(self, app: ASGIApp, token_digest: bytes | None, origins: Collection[str] = ()) -> None:
        self._app, self._digest, self._origins = app, token_digest, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket" and not self._own_page(scope):
            await send({"type": "websocket.close", "code": 1008, "reason": "another origin"})
        elif self._digest is None and not _is_local(scope):
            said = f"without a token only this machine is answered, as localhost: set {TOKEN_VARIABLE}"
            await _refuse(scope, send, Problem(403, said))
        elif self._digest is None or self._open(scope) or self._knows(scope):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, send, Problem(401, "send the header Authorization: Bearer <token>"))

    def _own_page(self, scope: Scope) -> bool:
        origin = _header(scope, b"origin")
        return not origin or origin in self._origins or _is_origin_of(origin, _header(scope, b"host"))

    @staticmethod
    def _open(scope: Scope) -> bool:
        path = str(scope["path"])
        return scope["type"] == "http" and (path in _OPEN or path.startswith(_OPEN_FOLDERS))

    def _knows(self, scope: Scope) -> bool:
        """Compared in constant time, so that no answer tells how much of a guess was right."""
        assert self._digest is not None
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                return hmac.compare_digest(hashlib.sha256(value[7:].strip()).digest(), self._digest)
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith("bearer."):
                try:
                    token = base64.urlsafe_b64decode(protocol[7:] + "=" * (-len(protocol[7:]) % 4))
                except (binascii.Error, ValueError):
                    return False
                return hmac.compare_digest(hashlib.sha256(token).digest(), self._digest)
        return False


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _is_local(scope: Scope) -> bool:
    """Whether a request came in on an address of this machine alone, and asks for it by such a name.

    The name, because a page of any other host can have its own name resolve to 127.0.0.1 (DNS rebinding).
    """
    server = scope.get("server")
    if server is not None and not is_loopback(server[0]):
        return False
    asked = _authority(_header(scope, b"host"))
    return asked is not None and is_loopback(asked[0])


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether a page of that origin came from the host that is asked now, by http or, through another's TLS, https."""
    scheme, separator, rest = origin.partition("://")
    default = {"http": 80, "https": 443}.get(scheme)
    page, asked = _authority(rest), _authority(host)
    if not separator or default is None or page is None or asked is None:
        return False
    return page[0] == asked[0] and (page[1] or default) == (asked[1] or default)


@functools.lru_cache(maxsize=1024)
def _authority(text: str) -> tuple[str, int | None] | None:
    """Name, in small letters, and port of a Host header (RFC 9110, 7.2); None: it is no such thing."""
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        return None
    ipv6, name, port = parts.groups()
    return (ipv6 or name).lower(), None if port is None else int(port)


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine (RFC 6761, 6.3 for localhost)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.removesuffix(".").lower() == "localhost"


async def _refuse(scope: Scope, send: Send, problem: Problem) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail})
    else:
        await send_problem(send, problem)


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer with a problem."""
    body = problem_body(problem, http.HTTPStatus(problem.status).phrase)
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if problem.retry_after is not None:
        headers.append((b"retry-after", str(problem.retry_after).encode()))
    if problem.status in UNREAD:  # or the connection would wait for the rest of the body
        headers += [(b"connection", b"close"), (UNREAD_HEADER.encode(), b"1")]
        name, _, value = UNREAD[problem.status].partition(" ")
        if name:
            headers.append((name.encode(), value.encode()))
    start: dict[str, Any] = {"type": "http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
