"""The HTTP service: ``POST /act`` on a short path of its own, everything else through FastAPI."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import fastapi
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from actors import trees
from actors.errors import UserError
from actors.pictures import pictures_in
from serve.service.batching import Batcher
from serve.service.gate import Gate, send_problem
from serve.service.memories import memories_in, memory_of
from serve.service.meters import Access, Meters
from serve.service.openapi import describe_act
from serve.service.policies import Policies
from serve.service.protocol import (
    Problem,
    decode,
    encode,
    observations_of,
    problem_body,
)
from serve.service.request_limits import HttpConfig
from serve.watch.recording import Recorder
from serve.watch.session import watch_router

log = logging.getLogger("touchdown")

_RELOAD_SECONDS = 0.5
_FLUSH_SECONDS = 1.0
_MOST_DETAIL = 200
_MOST_LETTERS = 6
"""Bytes that a number of a picture takes at most in nested lists, commas, spaces and brackets included."""


class Service:
    """The whole service as one ASGI application.

    Args:
        policies: what is served.
        config: its limits.
        token_digest: of the bearer token that is asked for; None: none is.
        follow: look for newer policies twice a second.
        record: the dataset that keeps what people fly on the page, whole episodes; None: nothing does.

    Raises:
        UserError: the dataset is of another environment than the policies, or these are of several.
        OSError: the dataset cannot be written.
    """

    def __init__(
        self,
        policies: Policies,
        config: HttpConfig,
        token_digest: bytes | None = None,
        follow: bool = False,
        record: str | None = None,
    ) -> None:
        self.recorder = Recorder(record, policies) if record else None
        self.policies, self.config, self.follow = policies, config, follow
        self.meters = Meters(config.access_log)
        seen = [served.policy.spec.observation for served in policies.values()]  # newer versions see the same
        pixels = max(sum(picture.inputs for _, picture in pictures_in(space)) for space in seen)
        self._most_bytes = max(config.max_body, _MOST_LETTERS * pixels)
        self._batcher = Batcher(config.max_waiting, self.meters.batch)
        self._refreshing = asyncio.Lock()
        self._rest = rest_of(self)
        app: ASGIApp = Gate(self._route, token_digest, config.cors_origins)
        if config.cors_origins:
            app = CORSMiddleware(
                app, config.cors_origins, allow_methods=["GET", "POST"], allow_headers=["authorization", "content-type"]
            )
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/act":
            await self._act(scope, receive, send)
        elif scope["type"] == "http" and _has_body(scope):
            await send_problem(send, Problem(413, f"{scope['method']} {scope['path']} takes no body"))
        else:
            if scope["type"] == "http" and scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}  # of its answer the server sends the head alone
            await self._rest(scope, receive, send)

    async def _act(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        access = Access(time.time(), "/act", 200, 0.0)
        try:
            body = await self._answer(await self._body(scope, receive), access)
        except Problem as problem:
            access.status, access.detail = problem.status, problem.detail[:_MOST_DETAIL]
            await send_problem(send, problem)
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        access.ms = round((time.perf_counter() - began) * 1000, 3)
        self.meters.request(access)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] != "POST":
            raise Problem(405, f"{scope['method']} /act is not there: POST an observation")
        length = None
        kind = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-length":
                length = int(value)
        if kind != b"application/json":
            raise Problem(415, "send the observation as Content-Type: application/json")
        too_long = Problem(413, f"the body is longer than {self._most_bytes:,} bytes")
        if length is not None and length > self._most_bytes:
            raise too_long
        body = b""
        try:
            async with asyncio.timeout(self.config.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the connection was closed before the body was whole")
                    chunk: bytes = message.get("body", b"")
                    body += chunk
                    if len(body) > self._most_bytes:
                        raise too_long
                    if not message.get("more_body"):
                        return body
        except TimeoutError:
            raise Problem(408, f"the body did not arrive within {self.config.body_seconds:g} seconds") from None

    async def _answer(self, body: bytes, access: Access) -> bytes:
        request = decode(body)
        try:
            served = self.policies.find(request.policy)
        except UserError as error:
            raise Problem(422, str(error), "policy") from None
        access.policy, access.version = served.name, served.version
        observations = observations_of(request, served.policy.spec)
        access.observations = trees.length(observations)
        memory = memory_of(request, served.policy, access.observations)
        deterministic = not served.policy.spec.is_sampled if request.deterministic is None else request.deterministic
        answered = await self._batcher.submit(served.policy, observations, deterministic, request.seed, memory)
        answer: dict[str, Any] = {"policy": served.name, "version": served.version}
        if request.observation:
            answer["action"] = answered.actions[0]
            answer |= trees.rows(answered.shown, 0)
        else:
            answer["actions"] = answered.actions
            answer |= answered.shown
        if answered.memory:
            memories = memories_in(answered.memory)
            answer |= {"memory": memories[0]} if request.observation else {"memories": memories}
        answer |= served.shown_once
        return encode(answer)

    async def refresh(self) -> None:
        """Look for newer policies once."""
        async with self._refreshing:
            for served in await asyncio.to_thread(self.policies.refresh):
                self.meters.reload(served)
        self.meters.versions(self.policies)

    async def _flush(self) -> None:
        self.meters.flush()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        """While the service runs."""
        self.meters.versions(self.policies)
        tasks = [asyncio.create_task(_every(_FLUSH_SECONDS, self._flush))]
        if self.follow:
            tasks.append(asyncio.create_task(_every(_RELOAD_SECONDS, self.refresh)))
        yield
        for task in tasks:
            task.cancel()
        self.meters.flush()


def _has_body(scope: Scope) -> bool:
    """Whether a request announces a body, which would have to be waited for."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again; what goes wrong once is logged, and does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            log.exception("tried again in %g s", seconds)


def rest_of(service: Service) -> fastapi.FastAPI:
    """Everything but ``/act``: the page, what is served, health, and the documents."""
    app = FastAPIOffline(
        title="Touchdown",
        summary="A trained policy: observations in, actions out",
        version="1",
        lifespan=service.lifespan,
        redoc_url=None,
    )

    @app.get("/policies", tags=["policies"])
    async def policies() -> dict[str, Any]:
        """What is served: names, versions, environments, and why the newest file is not served if it is not."""
        return {"policies": [served.summary() for served in service.policies.values()]}

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Whether this replica answers."""
        return {"status": "ok"}

    @app.exception_handler(HTTPException)
    async def problem(_request: Request, error: HTTPException) -> Response:
        return Response(
            problem_body(Problem(error.status_code, str(error.detail)), str(error.detail)),
            error.status_code,
            headers=dict(error.headers or {}),
            media_type="application/problem+json",
        )

    app.include_router(watch_router(service.policies, service.config.max_viewers, service.recorder))
    describe_act(app)
    return app
