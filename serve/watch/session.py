"""Watching policies fly: the WebSocket that shows a flight and takes commands, and the page's files."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypeVar

import fastapi
import msgspec
from fastapi import WebSocket
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from actors.errors import EnvironmentFault, NonFiniteError, UserError
from serve.service.policies import Policies
from serve.service.protocol import MOST_REWARD
from serve.watch.flight import MOST_SEEDS, Flight
from serve.watch.recording import Recorder

T = TypeVar("T")

log = logging.getLogger("touchdown")

MOST_BYTES = 1024
"""In a command."""
COMMAND_SECONDS = 0.02
"""Between two commands that are read: a viewer who sends more waits, and takes no time from others."""
OUTCOME_SECONDS = 1.0
"""An episode's end is looked at this long before the next begins."""
MOST_SKIPPED = 5
"""Steps without a frame when the server is behind; a flight that is later than that waits for nobody: it loses time."""
LEAST_REST = 0.002
"""Seconds: shorter ones the event loop would make longer, which counts in milliseconds."""
MOST_REST = 0.02
"""Seconds, whatever came before, such as a first flight's imports: nobody waits longer for a step."""
PAGE = Path(__file__).parent / "page"
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What a viewer may ask for, all of it also in the address: ``/watch?policy=ppo&seed=7``."""

    policy: str | UnsetType = UNSET
    """Another policy, from the same seed."""
    sampled: bool | UnsetType = UNSET
    target: Annotated[float, msgspec.Meta(ge=-MOST_REWARD, le=MOST_REWARD)] | UnsetType | None = UNSET
    """The return that the policy acts for; None: its own."""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=MOST_SEEDS)] | UnsetType | None = UNSET
    """A new episode; None: a random seed."""
    stick: Annotated[int, msgspec.Meta(ge=0)] | UnsetType | None = UNSET
    """An action of the viewer's own, until the next such command; None: the policy flies."""
    speed: Annotated[float, msgspec.Meta(ge=0.1, le=4)] | UnsetType = UNSET
    """Times real time."""
    pause: bool | UnsetType = UNSET


class Kept(msgspec.Struct, tag_field="type", tag="kept"):
    """An episode that the viewer has flown is in the dataset."""

    kept: int
    """How many of all viewers are."""


class Refusal(msgspec.Struct, tag_field="type", tag="error"):
    """A command that is not obeyed."""

    error: str
    field: str | None


_commands = msgspec.json.Decoder(Command)
_encoder = msgspec.json.Encoder()


def watch_router(policies: Policies, most_viewers: int = 64, recorder: Recorder | None = None) -> fastapi.APIRouter:
    """The WebSocket ``/watch``, the page at ``/`` and its files at ``/page/…``.

    Args:
        policies: what can be watched.
        most_viewers: flights at once; others are told to come again later (1013).
        recorder: keeps what viewers fly; None: nobody does.
    """
    router = fastapi.APIRouter()
    files = StaticFiles(directory=PAGE)
    watching: set[Viewing] = set()
    turns = Turns()

    @router.websocket("/watch")
    async def watch(socket: WebSocket) -> None:
        await socket.accept("touchdown" if "touchdown" in socket.scope["subprotocols"] else None)
        if len(watching) >= most_viewers:
            await socket.close(1013, f"{most_viewers} flights are being watched already: come again later")
            return
        viewing = Viewing(socket, policies, turns, recorder)
        watching.add(viewing)
        try:
            with contextlib.suppress(WebSocketDisconnect):
                await viewing.run()
        finally:
            watching.remove(viewing)

    async def page(request: Request) -> Response:
        answer = await files.get_response(request.path_params.get("path", "index.html"), request.scope)
        answer.headers.update(HEADERS)
        return answer

    for path in ("/", "/page/{path:path}"):
        router.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
    return router


class Turns:
    """Work of all viewers, such as steps: one at a time between two turns of the event loop, in which requests are
    answered, and for half of the process's time at the most.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "watching")
        """One for all: what draws by OpenGL wants to be in the same one always."""
        self._paid = 0.0
        """When as much time will have passed for others as the work took."""

    async def take(self, work: Callable[[], T], may_be_slow: bool) -> T:
        """Do it when its turn comes, and if it may be slow beside the event loop; once begun it is done, even if the
        viewer leaves."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            timing = functools.partial(_timed, work)
            done, took = await _whole(loop.run_in_executor(self._thread, timing)) if may_be_slow else timing()
            now = loop.time()
            self._paid = min(max(self._paid, now) + 2 * took, now + MOST_REST)
            owed = self._paid - now
            await asyncio.sleep(owed if owed > LEAST_REST else 0)
        return done


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the CPU seconds that it took."""
    began = time.thread_time()
    return work(), time.thread_time() - began


async def _whole(future: asyncio.Future[T]) -> T:
    """Its result; who is cancelled meanwhile waits for it nevertheless."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


class Viewing:
    """One viewer and the flight shown to them, until they leave.

    Commands are noted as they come and obeyed between two steps, the newest of each kind. Frames are sent one at a
    time, so that a slow viewer gets fewer and delays nobody.

    Args:
        socket: to the viewer.
        policies: what can be watched.
        turns: which all viewings of a process share, so that they yield to its other requests.
        recorder: keeps what the viewer flies; None: nobody does.
    """

    def __init__(self, socket: WebSocket, policies: Policies, turns: Turns, recorder: Recorder | None = None) -> None:
        self._socket, self._policies, self._turns, self._recorder = socket, policies, turns, recorder
        self._flight: Flight | None = None
        self._open: list[Flight] = []
        """Those that are to be closed."""
        self._asked = Command()
        self._woken = asyncio.Event()
        self._paused, self._speed = False, 1.0
        self._sampled: bool | None = None
        self._owed = 0.0

    async def run(self) -> None:
        """Fly until the viewer leaves."""
        await self._note(read_address({"policy": self._policies.first, **self._socket.query_params}))
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._fly())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close(*self._open)
        for task in done:
            task.result()

    async def _listen(self) -> None:
        """Note commands, until the viewer leaves."""
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            await self._note(read_message(message.get("text") or message.get("bytes") or b""))
            await asyncio.sleep(COMMAND_SECONDS)

    async def _note(self, command: Command | Refusal) -> None:
        if isinstance(command, Refusal):
            await self._send(command)
            return
        for field in Command.__struct_fields__:
            if (value := getattr(command, field)) is not UNSET:
                setattr(self._asked, field, value)
        self._woken.set()

    async def _send(self, message: Any) -> None:
        await self._socket.send_text(_encoder.encode(message).decode())

    async def _fly(self) -> None:
        """Step by step at the flight's own pace, by deadlines that do not drift."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            try:
                await self._obey()
            except EnvironmentFault as error:
                await self._give_up(error)
            if self._flight is None or self._paused:
                await self._wait(None)
                due = clock()
                continue
            if self._flight.over and clock() < due:
                await self._wait(due - clock())
                continue
            tick = 1 / (self._flight.fps * min(self._speed, 1))
            late = int((clock() - due) / tick)
            if late > MOST_SKIPPED:
                due, late = clock(), 0
            try:
                await self._advance(self._flight, late + 1)
            except EnvironmentFault as error:
                await self._give_up(error)
                continue
            if self._flight.over:
                due = clock() + OUTCOME_SECONDS
            else:
                due += (late + 1) * tick
                await asyncio.sleep(due - clock())

    async def _give_up(self, error: EnvironmentFault) -> None:
        """Tell of an environment that raised, and wait for what the viewer asks for next."""
        log.warning("%s\n%s", error, error.details)
        self._flight = None
        await self._close(*self._open)
        await self._send(Refusal(str(error), None))

    async def _close(self, *flights: Flight) -> None:
        for flight in flights:
            await self._turns.take(flight.close, flight.may_be_slow)
            self._open.remove(flight)

    async def _wait(self, seconds: float | None) -> None:
        """Until a command comes, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _advance(self, flight: Flight, ticks: int) -> None:
        """As many steps as are due, of which the last is shown."""
        if flight.over:
            await self._show(flight, flight.seed + 1)
            return
        self._owed += ticks * max(self._speed, 1)
        frame = None
        while self._owed >= 1 and not flight.over:
            self._owed -= 1
            frame = await self._turns.take(flight.step, flight.may_be_slow)
        if frame:
            frame.picture, frame.seen = await self._turns.take(flight.draw, flight.may_be_slow)
            await self._send(frame)
        if flight.over:
            self._owed = 0
            await self._send(flight.landed())
            if self._recorder:
                await self._keep(flight, self._recorder)

    async def _keep(self, flight: Flight, recorder: Recorder) -> None:
        """Have an episode kept that the viewer has flown from its first step to its last."""
        try:
            episode = flight.flown_by_hand()
            if episode:
                await self._send(Kept(await asyncio.to_thread(recorder.keep, episode)))
        except (OSError, ValueError, NonFiniteError) as error:
            log.warning("a flight is not kept", exc_info=True)
            await self._send(Refusal(f"your flight is not kept: {error}", None))

    async def _show(self, flight: Flight, seed: int | None) -> None:
        """Begin an episode."""
        begin = functools.partial(flight.begin, None if seed is None else seed % MOST_SEEDS)
        await self._turns.take(begin, flight.may_be_slow)
        await self._tell(flight)

    async def _tell(self, flight: Flight) -> None:
        """What an episode is of, and where it starts."""
        flight.scene.kept = self._recorder.kept if self._recorder else None
        await self._send(flight.scene)
        await self._send(flight.first_frame())

    async def _obey(self) -> None:
        """Do what was asked for since the last step."""
        if not self._woken.is_set():
            return
        self._woken.clear()
        asked, self._asked = self._asked, Command()
        if asked.pause is not UNSET:
            self._paused = asked.pause
        if asked.speed is not UNSET:
            self._speed = asked.speed
        if asked.sampled is not UNSET:
            self._sampled = asked.sampled
        if asked.policy is not UNSET:
            await self._change(asked.policy, asked)
        elif self._flight:
            await self._ask(self._flight, asked)
            if asked.seed is not UNSET:
                await self._show(self._flight, asked.seed)
        if self._flight and asked.sampled is not UNSET:
            self._flight.sampled = asked.sampled
        if self._flight and asked.stick is not UNSET:
            try:
                self._flight.take(asked.stick)
            except UserError as error:
                await self._send(Refusal(str(error), "stick"))

    async def _ask(self, flight: Flight, asked: Command) -> None:
        """Have the policy act for the return that is asked for, if one is."""
        if asked.target is UNSET:
            return
        try:
            flight.ask(asked.target)
        except UserError as error:
            await self._send(Refusal(str(error), "target"))

    async def _change(self, policy: str, asked: Command) -> None:
        """Fly another policy; if that cannot be, the one that flies goes on."""
        old = self._flight
        seed = asked.seed if asked.seed is not UNSET else old.seed if old else None

        def make() -> Flight:
            flight = Flight(self._policies, policy, seed, self._sampled, recorded=self._recorder is not None)
            self._open.append(flight)
            return flight

        try:
            self._flight = await self._turns.take(make, may_be_slow=True)
        except UserError as error:
            await self._send(Refusal(str(error), "policy"))
            return
        if old:
            await self._close(old)
        await self._ask(self._flight, asked)
        await self._tell(self._flight)


def read_message(message: str | bytes) -> Command | Refusal:
    """A command from a message, or what is wrong with it."""
    if len(message) > MOST_BYTES:
        return Refusal(f"a command has {MOST_BYTES} bytes at the most", None)
    try:
        return _commands.decode(message)
    except msgspec.ValidationError as error:
        return _refusal(error)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return Refusal(f"not JSON: {error}", None)


def read_address(query: Mapping[str, str]) -> Command | Refusal:
    """A command from an address, or what is wrong with it."""
    try:
        return msgspec.convert(query, Command, strict=False)
    except msgspec.ValidationError as error:
        return _refusal(error)


def _refusal(error: msgspec.ValidationError) -> Refusal:
    """msgspec's words, and the field that they are about."""
    message, _, path = str(error).partition(" - at `$.")
    field = path.rstrip("`") or (message.split("`")[-2] if "unknown field" in message else None)
    message = message.replace("`", "")
    return Refusal(f"{field}: {message}" if field else message, field)
