"""Watching over real WebSockets: what is shown, what commands do, and what happens to those who misbehave."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from actors.environments import describe
from learner.dataset.dataset import open_dataset
from serve.client import PolicyClient
from serve.watch import session
from serve.watch.flight import Flight
from serve.watch.session import MOST_SKIPPED, Turns, Viewing
from tests.actors.examples import policy_for, random_policy, stubborn_policy
from tests.actors.fake_environments import Painted
from tests.serve.served import PATIENCE, PATIENT, wait_for
from tests.serve.watching import saved, served

LANDER = "LunarLander-v3"
RETURNS = {"least": -7, "mean": 3, "most": 31.5}
MODULES = ["tests.actors.fake_environments"]
TOKEN = "a-token-of-no-worth~?"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    nowhere = dataclasses.replace(describe("CartPole-v1").policy_spec(), env_id="Nowhere-v0")
    policies = {
        "up": stubborn_policy(LANDER, 2, version=7),
        "cart": policy_for("CartPole-v1"),
        "nowhere": random_policy(nowhere),
        "asked": policy_for(LANDER, memory="transformer", target_return=90.0, trained={"returns": RETURNS}),
    }
    with served(saved(tmp_path_factory.mktemp("policies"), policies)) as address:
        yield address


@contextlib.contextmanager
def watching(at: str, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://{at}/watch{query}", open_timeout=PATIENCE, ping_interval=None, **options) as socket:
        yield socket


def read(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(PATIENCE))
    return message


def until(socket: ClientConnection, **wanted: Any) -> dict[str, Any]:
    """Read on to a message that has these values."""

    def found() -> dict[str, Any] | None:
        message = read(socket)
        return message if message.items() >= wanted.items() else None

    message: dict[str, Any] = wait_for(found, str(wanted), every=0)
    return message


def tell(socket: ClientConnection, **command: Any) -> None:
    socket.send(json.dumps(command))


def test_scene_frames_landing_and_the_next(at: str) -> None:
    with watching(at, "?policy=up&seed=0") as socket:
        scene = read(socket)
        assert (scene["type"], scene["policy"], scene["version"], scene["seed"]) == ("scene", "up", 7, 0)
        assert scene["actions"] == ["nothing", "left engine", "main engine", "right engine"]
        tell(socket, speed=4)
        times = []
        while (message := read(socket))["type"] == "frame":
            times.append(message["t"])
        assert times == sorted(set(times))
        assert (times[0], times[-1]) == (0, 89)
        assert message["type"] == "landed"
        assert (message["seed"], message["steps"], message["outcome"]) == (0, 89, "flew away")
        assert until(socket, type="scene")["seed"] == 1


def test_the_first_policy_is_shown_unless_another_is_named(at: str) -> None:
    with watching(at) as socket:
        assert read(socket)["policy"] == "up"
        tell(socket, policy="cart", seed=3, sampled=True)
        scene = until(socket, type="scene", policy="cart")
        assert (scene["seed"], scene["moon"]) == (3, None)
        assert len(until(socket, type="frame")["observation"]) == 4


def test_pause_and_a_new_seed(at: str) -> None:
    with watching(at, "?pause=true&seed=1") as socket:
        read(socket)
        assert read(socket)["t"] == 0
        tell(socket, seed=9)
        assert read(socket)["seed"] == 9
        assert read(socket)["t"] == 0
        tell(socket, pause=False)
        assert 1 <= read(socket)["t"] <= MOST_SKIPPED + 1
        tell(socket, seed=None)
        assert until(socket, type="scene")["seed"] != 9


def test_a_return_is_asked_for(at: str) -> None:
    with watching(at, "?policy=asked&seed=2&target=-20.5") as socket:
        scene = read(socket)
        assert (scene["target"], scene["sampled"]) == ({"asked": -20.5, "least": -7, "most": 90}, True)
        assert until(socket, type="frame")["target"] == -20.5
        tell(socket, target=40, sampled=False)
        assert until(socket, type="frame", target=40)
        tell(socket, seed=3)
        scene = until(socket, type="scene")
        assert (scene["target"]["asked"], scene["sampled"], scene["kept"]) == (40, False, None)
        tell(socket, target=None)
        assert until(socket, type="frame", target=90)
        tell(socket, policy="up")
        assert until(socket, type="scene", policy="up")["target"] is None
        assert "target" not in until(socket, type="frame", action=2)
    with watching(at, "?policy=up&target=3") as socket:
        assert until(socket, type="error")["field"] == "target"
        assert until(socket, type="frame", action=2)


def test_whole_flights_of_the_viewer_are_kept(tmp_path: Path) -> None:
    policies = saved(tmp_path, {"one": policy_for("tests.actors.fake_environments:Filmed-v0")}, MODULES)
    with served(policies, record=tmp_path / "mine") as at:
        with watching(at, "?seed=0&pause=true") as socket:
            assert until(socket, type="scene")["kept"] == 0
            tell(socket, stick=1, speed=4)
            tell(socket, pause=False)
            until(socket, type="landed", seed=0, pilot="you")
            assert until(socket, type="kept")["kept"] == 1
            assert until(socket, type="scene", seed=1)["kept"] == 1
            tell(socket, stick=None)  # maybe later than after a whole flight more
            until(socket, type="landed", pilot="policy")
        with watching(at, "?seed=5&pause=true") as socket:
            before = until(socket, type="scene")["kept"]
            tell(socket, stick=0, speed=4)
            tell(socket, pause=False)
            assert until(socket, type="kept")["kept"] == before + 1
    dataset = open_dataset(tmp_path / "mine")
    assert dataset.sources == [{"person": True}]
    assert (dataset.returns.tolist(), dataset.lengths.tolist()) == ([4] * (before + 1), [4] * (before + 1))
    assert [dataset.part(i).actions.tolist() for i in range(before + 1)] == [*([[1] * 4] * before), [0] * 4]


def test_a_flight_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    policies = saved(tmp_path, {"one": policy_for("tests.actors.fake_environments:Filmed-v0")}, MODULES)
    with (
        served(policies, record=tmp_path / "mine") as at,
        watching(at, "?seed=0&pause=true") as socket,
    ):
        (tmp_path / "mine" / "parts").write_text("no directory")
        tell(socket, stick=1, speed=4)
        tell(socket, pause=False)
        assert "your flight is not kept: " in until(socket, type="error")["error"]
        (tmp_path / "mine" / "parts").unlink()
        assert until(socket, type="kept")["kept"] == 2
    assert open_dataset(tmp_path / "mine").num_episodes == 2


def test_the_stick(at: str) -> None:
    with watching(at, "?seed=2") as socket:
        tell(socket, stick=0)
        assert until(socket, type="frame", pilot="you", action=0)
        tell(socket, stick=None)
        assert until(socket, type="frame", pilot="policy", action=2)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ('{"speed": 9}', "speed", "speed: Expected float <= 4"),
        ('{"speed": 0}', "speed", ">= 0.1"),
        ('{"speed": NaN}', None, "not JSON"),
        ('{"seed": -1}', "seed", ">= 0"),
        ('{"seed": 3000000000}', "seed", "2147483647"),
        ('{"seed": 1.5}', "seed", "int"),
        ('{"pause": "yes"}', "pause", "bool"),
        ('{"stick": 4}', "stick", "LunarLander-v3 takes 0 to 3; not 4"),
        ('{"stick": true}', "stick", "int"),
        ('{"policy": "none"}', "policy", "unknown policy 'none'"),
        ('{"policy": "nowhere"}', "policy", "unknown environment 'Nowhere-v0'"),
        ('{"warp": 1}', "warp", "unknown field"),
        ("[1]", None, "Expected object"),
        ("fly!", None, "not JSON"),
        ("", None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        ("[" * 1000, None, ""),
        (json.dumps({"policy": "x" * 1024}), None, "1024 bytes at the most"),
    ],
)
def test_a_bad_message_gets_one_line_and_the_flight_goes_on(
    at: str, message: str | bytes, field: str | None, words: str
) -> None:
    with watching(at) as socket:
        until(socket, type="frame")
        socket.send(message)
        refusal = until(socket, type="error")
        assert refusal["field"] == field
        assert words in refusal["error"]
        assert "\n" not in refusal["error"]
        assert until(socket, type="frame")["version"] == 7


def test_what_cannot_be_flown_is_said_and_another_policy_can_be(at: str) -> None:
    with watching(at, "?policy=nowhere") as socket:
        assert "Nowhere-v0" in until(socket, type="error", field="policy")["error"]
        tell(socket, policy="up")
        assert read(socket)["type"] == "scene"
    with watching(at, "?seed=-1") as socket:
        assert read(socket)["field"] == "seed"


def test_one_viewer_too_many_and_one_who_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    policies = saved(tmp_path, {"up": stubborn_policy(LANDER, 2)})

    def close(flight: Flight) -> None:
        if flight._policies is policies:  # those of other tests may be closing still
            closed.append(flight.seed)

    monkeypatch.setattr(Flight, "close", close)
    with served(policies, most_viewers=1) as address:
        with watching(address, "?pause=true") as socket:
            read(socket)
            with watching(address) as other, pytest.raises(ConnectionClosed) as refused:
                other.recv(PATIENCE)
            assert refused.value.rcvd is not None
            assert refused.value.rcvd.code == 1013
            assert "1 flights are being watched already" in refused.value.rcvd.reason
        wait_for(lambda: len(closed) == 1, "a paused flight ends when its viewer leaves")
        with watching(address) as socket:
            assert read(socket)["type"] == "scene"
            socket.socket.close()  # without a word, as when a network goes away
        wait_for(lambda: len(closed) == 2, "a flight ends when its connection does")


class Stuck:
    """A WebSocket whose other end reads when it is told to."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.query_params = {"seed": "0"}

    async def send_text(self, text: str) -> None:
        self.sent.append(json.loads(text))
        await self.reads.wait()

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError


class Simulated(asyncio.SelectorEventLoop):
    """An event loop whose time passes when nobody has anything to do, at once and no further than to what is next."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class AtOnce(concurrent.futures.Executor):
    """Does work when it is given."""

    def submit(self, work: Any, /, *arguments: Any, **options: Any) -> concurrent.futures.Future[Any]:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        done.set_result(work(*arguments, **options))
        return done


def in_simulated_time(watch: Coroutine[Any, Any, None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it where steps take no time."""
    monkeypatch.setattr("serve.watch.session.ThreadPoolExecutor", lambda *_: AtOnce())
    monkeypatch.setattr("serve.watch.session.time.thread_time", lambda: 0.0)
    with asyncio.Runner(loop_factory=Simulated) as runner:
        runner.run(watch)


@pytest.mark.parametrize(
    ("wishes", "frames", "last"),
    [
        ({}, 100, 100),
        ({"speed": "0.2"}, 20, 20),
        ({"speed": "1.5"}, 100, 150),
        ({"speed": "3"}, 100, 300),
        ({"pause": "true"}, 0, 0),
    ],
)
def test_fifty_steps_a_second_times_the_speed(
    wishes: dict[str, str], frames: int, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two seconds; more frames than fifty a second nobody sees."""

    async def watch_two_seconds() -> None:
        socket: Any = Stuck()
        socket.reads.set()
        socket.query_params = {"seed": "5", **wishes}  # flies for more than 300 steps
        policies = saved(tmp_path, {"up": stubborn_policy(LANDER, 2)})
        viewing = asyncio.create_task(Viewing(socket, policies, Turns()).run())
        await asyncio.sleep(1.99)
        viewing.cancel()
        await asyncio.gather(viewing, return_exceptions=True)
        scene, *times = [message.get("t") for message in socket.sent]
        assert scene is None
        assert times[0] == 0
        assert len(times) - 1 == frames
        assert times[-1] == last

    in_simulated_time(watch_two_seconds(), monkeypatch)


def test_a_viewer_who_does_not_read_gets_no_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch_stuck() -> None:
        socket: Any = Stuck()
        policies = saved(tmp_path, {"up": stubborn_policy(LANDER, 2)})
        viewing = asyncio.create_task(Viewing(socket, policies, Turns()).run())
        for _ in range(100):
            await asyncio.sleep(0.01)
            assert len(socket.sent) <= 1, "one message is on its way, and none wait behind it"
        assert len(socket.sent) == 1
        socket.reads.set()
        while len(socket.sent) < 10:
            await asyncio.sleep(0.01)
        times = [message["t"] for message in socket.sent[1:]]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= MOST_SKIPPED + 1
        viewing.cancel()
        await asyncio.gather(viewing, return_exceptions=True)

    in_simulated_time(watch_stuck(), monkeypatch)


def test_viewers_take_turns_with_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps, of whichever flights, the event loop answers what has come."""
    turn = 0
    steps: list[int] = []
    step = Flight.step

    def stepping(flight: Flight) -> Any:
        steps.append(turn)
        return step(flight)

    async def watch_all() -> None:
        nonlocal turn
        policies, turns = saved(tmp_path, {"up": stubborn_policy(LANDER, 2)}), Turns()
        viewings = []
        for seed in range(8):
            socket: Any = Stuck()
            socket.reads.set()
            socket.query_params = {"seed": str(seed), "speed": "4"}
            viewings.append(asyncio.create_task(Viewing(socket, policies, turns).run()))
        async with asyncio.timeout(PATIENCE):
            while len(steps) < 400:
                turn += 1
                await asyncio.sleep(0)
        for viewing in viewings:
            viewing.cancel()
        await asyncio.gather(*viewings, return_exceptions=True)

    monkeypatch.setattr(Flight, "step", stepping)
    asyncio.run(watch_all())
    assert len(set(steps)) == len(steps), "no two in one turn"


def test_what_draws_slowly_keeps_no_request_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is an environment closed while it draws, whoever leaves."""
    draws, may_go_on, closed = threading.Event(), threading.Event(), threading.Event()
    first = Painted.render

    def render(env: Painted) -> Any:
        draws.set()
        assert may_go_on.wait(PATIENCE)
        assert not closed.is_set()
        return first(env)

    monkeypatch.setattr(Painted, "render", render)
    monkeypatch.setattr(Painted, "close", lambda _: closed.set() if draws.is_set() else None)
    with served(saved(tmp_path, {"painted": policy_for("Painted-v0", hidden_sizes=())})) as address:
        with watching(address, "?seed=0") as socket, PolicyClient(f"http://{address}", **PATIENT) as client:
            assert draws.wait(PATIENCE)
            assert client.act(np.zeros((12, 12, 3), np.uint8)).version == 0
            socket.socket.close()
        assert not closed.is_set()
        may_go_on.set()
        assert closed.wait(PATIENCE)


def test_a_token_goes_as_a_subprotocol(tmp_path: Path) -> None:
    encoded = "bearer.YS10b2tlbi1vZi1uby13b3J0aH4_"
    with served(saved(tmp_path, {"up": stubborn_policy(LANDER, 2)}), token=TOKEN) as address:
        with watching(address, subprotocols=["touchdown", encoded]) as socket:
            assert socket.subprotocol == "touchdown"
            assert read(socket)["type"] == "scene"
        with pytest.raises(InvalidStatus), watching(address, subprotocols=["touchdown"]):
            pass


def test_the_pages_files(at: str) -> None:
    names = ["", *(f"page/{path.name}" for path in session.PAGE.iterdir())]
    assert len(names) > 5
    for name in names:
        with urllib.request.urlopen(f"http://{at}/{name}") as answer:
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
            body = answer.read().decode()
        assert "http://" not in body.replace("http://www.w3.org/", ""), "nothing from another host"
        assert "https://" not in body
    for missing in ("page/none.js", "page/../session.py", "page/%2e%2e/session.py", "page/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{at}/{missing}")
