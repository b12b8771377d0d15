"""The service over real HTTP: what it answers, its limits, and who may come in."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import websockets.exceptions
from websockets.sync.client import connect

from actors.policy import Policy
from serve.service.policies import Policies
from serve.service.tokens import digest
from tests.actors.examples import stubborn_policy
from tests.serve.served import LANDER, PATIENCE, running, save, serving, wait_for

TOKEN = "a token of more than sixteen"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("policies"), max_body=300_000) as address:
        yield address


def act(address: str, body: Any, **options: Any) -> httpx2.Response:
    return httpx2.post(f"{address}/act", json=body, timeout=PATIENCE, **options)


def raw(address: str, *parts: bytes) -> bytes:
    """What comes back on a connection on which these bytes were sent."""
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
            answer += more
        return answer


def test_actions_are_the_policys(address: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    policies = {
        name: Policy.load(next(tmp_path_factory.getbasetemp().glob(f"policies*/{name}")))
        for name in ("lander", "pendulum")
    }
    observations = np.random.default_rng(0).standard_normal((1000, 8), np.float32)
    lander = act(address, {"observations": observations.tolist()}).json()
    assert lander["actions"] == policies["lander"].act(observations).tolist()
    assert (lander["policy"], lander["version"]) == ("lander", 7)
    np.testing.assert_allclose(np.sum(lander["probabilities"], axis=1), 1, atol=1e-6)

    one = act(address, {"observation": observations[0, :3].tolist(), "policy": "pendulum"}).json()
    np.testing.assert_allclose([one["action"]], policies["pendulum"].act(observations[:1, :3]), rtol=1e-6)
    assert len(one["mean"]) == len(one["std"]) == 1
    assert "probabilities" not in one


def test_sampling_is_repeatable_with_a_seed(address: str) -> None:
    request = {"observations": [LANDER] * 100, "deterministic": False, "seed": 3}
    first, again = act(address, request).json(), act(address, request).json()
    assert first == again
    assert len(set(first["actions"])) > 1


def test_what_is_served_and_health(address: str) -> None:
    served = httpx2.get(f"{address}/policies", timeout=PATIENCE).json()["policies"]
    assert [one["name"] for one in served] == ["lander", "pendulum"]
    assert served[0]["version"] == 7
    assert served[0]["refused"] is None
    assert httpx2.get(f"{address}/healthz", timeout=PATIENCE).json() == {"status": "ok"}


def test_documents_need_no_other_host(address: str) -> None:
    document = httpx2.get(f"{address}/openapi.json", timeout=PATIENCE).json()
    examples = document["paths"]["/act"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        assert act(address, example["value"]).status_code == 200
    page = httpx2.get(f"{address}/docs", timeout=PATIENCE).text
    assert "://" not in page.replace(address, "")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"method": "GET"}, 405, "POST an observation"),
        ({"method": "PUT", "json": {}}, 405, "POST an observation"),
        ({"data": {"observation": "1"}}, 415, "Content-Type: application/json"),
        ({"content": b"{}"}, 415, "Content-Type: application/json"),
        ({"json": {"observation": LANDER, "policy": "landr"}}, 422, "unknown policy 'landr'; did you mean lander?"),
        ({"json": {"observation": "8" * 300_000}}, 413, "longer than 300,000 bytes"),
        ({"json": {"observation": LANDER[:-1]}}, 422, "takes 8 numbers"),
    ],
)
def test_a_mistake_gets_a_problem(address: str, options: dict[str, Any], status: int, said: str) -> None:
    response = httpx2.request(options.pop("method", "POST"), f"{address}/act", **options, timeout=PATIENCE)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert said in problem["detail"]
    assert problem["status"] == status


@pytest.mark.parametrize("path", ["/nothing", "/policies/lander", "/act/", "/page/../session.py", "//"])
def test_other_paths_are_not_found(address: str, path: str) -> None:
    response = httpx2.get(f"{address}{path}", timeout=PATIENCE)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_of_unknown_length_is_counted(address: str) -> None:
    head = (
        b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
    one_too_many = b"1\r\n "  # the last byte that is sent: what came after an answer could lose it
    assert raw(address, head, chunk * 300, one_too_many).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    head = b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    with serving(tmp_path, body_seconds=0.1) as hasty:
        assert raw(hasty, head + b"{").startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("path", ["/policies", "/healthz", "/docs", "/openapi.json", "/", "/page/page.js", "/nothing"])
def test_head_works_where_get_does(path: str, address: str) -> None:
    get, head = httpx2.get(f"{address}{path}", timeout=PATIENCE), httpx2.head(f"{address}{path}", timeout=PATIENCE)
    assert head.status_code == get.status_code
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]
    assert not head.content


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /policies", 413),
        ("GET /policies", 413),
        ("POST /nothing", 413),
        ("PUT /act", 405),
        ("POST /act", 415),
    ],
)
@pytest.mark.parametrize("announced", ["Content-Length: 50", "Transfer-Encoding: chunked"])
def test_a_body_that_is_not_wanted_is_not_waited_for(line: str, status: int, announced: str, address: str) -> None:
    """The answer comes before the body, and the connection ends with it."""
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\n{announced}\r\n\r\n".encode())
        answer = b""
        while more := connection.recv(65536):
            answer += more
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_a_connection_lost_in_the_middle_harms_nobody(address: str) -> None:
    url = urlsplit(address)
    for _ in range(20):
        connection = http.client.HTTPConnection(str(url.hostname), url.port)
        connection.putrequest("POST", "/act")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"{")
        connection.close()
    assert act(address, {"observation": LANDER}).status_code == 200


def test_fuzzed_bodies_get_no_server_error(address: str) -> None:
    """Bytes of a good request changed, doubled, dropped, and replaced, ten thousand times."""
    rng = random.Random(0)
    good = json.dumps({"observation": LANDER, "deterministic": False, "seed": 1, "policy": "lander"}).encode()
    pieces = [
        b"NaN",
        b"1e999",
        b"null",
        b"[[",
        b"}}",
        b'"',
        b"\x00",
        b"\xff",
        b"-",
        b"observations",
        b"9" * 400,
        b"\\u0000",
    ]
    seen: dict[int, int] = {}
    url = urlsplit(address)  # the standard library's client: ten thousand requests cost it a third
    client = http.client.HTTPConnection(str(url.hostname), url.port, timeout=PATIENCE)
    with contextlib.closing(client):
        for _ in range(10_000):
            body = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(body) + 1)
                body[at : at + rng.choice([0, 1, 1, 5])] = rng.choice([*pieces, bytes([rng.randrange(256)])])
            client.request("POST", "/act", bytes(body), {"Content-Type": "application/json"})
            answer = client.getresponse()
            answer.read()
            status = answer.status
            seen[status] = seen.get(status, 0) + 1
    assert set(seen) <= {200, 400, 422}, seen
    assert len(seen) == 3


def test_a_token_is_asked_for_everywhere_it_matters(tmp_path: Path) -> None:
    with serving(tmp_path, token_digest=digest(TOKEN)) as address:
        assert httpx2.get(f"{address}/healthz", timeout=PATIENCE).status_code == 200
        for given in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"bearer  {TOKEN[:-1]}"):
            headers = {} if given is None else {"authorization": given}
            for response in (
                act(address, {"observation": LANDER}, headers=headers),
                httpx2.get(f"{address}/policies", headers=headers, timeout=PATIENCE),
            ):
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
        good = {"authorization": f"Bearer {TOKEN}"}
        assert act(address, {"observation": LANDER}, headers=good).status_code == 200
        assert httpx2.get(f"{address}/policies", headers=good, timeout=PATIENCE).status_code == 200


def test_another_origins_page_may_not_watch(tmp_path: Path) -> None:
    with serving(tmp_path, cors_origins=("https://friend.example",)) as address:
        watch: Any = functools.partial(connect, address.replace("http", "ws") + "/watch", open_timeout=PATIENCE)
        for origin in (None, address, "https://friend.example"):
            with watch(origin=origin) as socket_:
                assert socket_.recv(timeout=PATIENCE)
        for origin in ("https://other.example", "null", address.replace("http", "https") + "1"):
            with pytest.raises(websockets.exceptions.InvalidStatus), watch(origin=origin):
                pass


def test_cors_is_off_unless_asked(address: str, tmp_path: Path) -> None:
    def asked(address: str, origin: str) -> httpx2.Headers:
        asking = {"origin": origin, "access-control-request-method": "POST"}
        return httpx2.options(f"{address}/act", headers=asking, timeout=PATIENCE).headers

    assert "access-control-allow-origin" not in asked(address, "https://friend.example")
    with serving(tmp_path, cors_origins=("https://friend.example",)) as open_to_a_friend:
        allowed = asked(open_to_a_friend, "https://friend.example")
        assert allowed["access-control-allow-origin"] == "https://friend.example"
        assert "access-control-allow-origin" not in asked(open_to_a_friend, "https://other.example")


def test_follow(tmp_path: Path) -> None:
    with serving(tmp_path, follow=True) as address:
        save(stubborn_policy("LunarLander-v3", 2), tmp_path / "lander", version=8)
        wait_for(lambda: act(address, {"observation": LANDER}).json()["version"] == 8)
        (tmp_path / "lander" / "policy.safetensors").write_bytes(b"no policy")
        listed = functools.partial(httpx2.get, f"{address}/policies", timeout=PATIENCE)
        assert "damaged" in wait_for(lambda: listed().json()["policies"][0]["refused"])
        assert act(address, {"observation": LANDER}).json()["action"] == 2, "the old one keeps answering"


HANDSHAKE = "\r\n".join(
    [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
)


def status(address: str, path: str, *headers: str) -> int:
    """Of a GET with these headers alone."""
    head = "\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""]).encode("latin-1")
    return int(raw(address, head).split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("localhost:1", True),
        ("LOCALHOST:8000", True),
        ("localhost.:8000", True),
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("127.0.0.1.evil.example", False),
        ("127.evil.example:80", False),
        ("localhost.evil.example", False),
        ("evil.example:80", False),
        ("evil.example:localhost", False),
        ("localhost:eighty", False),
        ("localhost:999999", False),
        ("localhost:80:80", False),
        ("localhost@evil.example", False),
        ("evil.example@localhost", False),
        ("localhost/evil.example", False),
        ("localhost?evil.example", False),
        ("[::1", False),
        ("[::1].evil.example", False),
        ("[::2]", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("\xb127.0.0.1", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_are_answered(host: str, local: bool, address: str) -> None:
    """A page elsewhere can have its own name resolve to 127.0.0.1, and is then of our origin."""
    assert (status(address, "/policies", f"Host: {host}") == 200) is local
    assert (status(address, "/watch", f"Host: {host}", HANDSHAKE) == 101) is local


def test_any_name_does_with_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, token_digest=digest(TOKEN)) as guarded:
        headers = {"host": "lander.example", "authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{guarded}/policies", headers=headers, timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("http://localhost:80", True),
        ("http://LocalHost", True),
        ("https://localhost:443", True),  # behind TLS that somebody else ends
        ("http://localhost:81", False),
        ("https://localhost:80", False),
        ("file://localhost", False),
        ("ftp://localhost", False),
        ("localhost", False),
        ("http:localhost", False),
        ("http://localhost.evil.example", False),
        ("http://localhost:eighty", False),
        ("null", False),
    ],
)
def test_only_pages_of_the_same_host_may_watch(origin: str, own: bool, address: str) -> None:
    assert (status(address, "/watch", "Host: localhost", f"Origin: {origin}", HANDSHAKE) == 101) is own


def test_what_goes_wrong_in_the_background_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refresh = Policies.refresh
    failures = iter([ZeroDivisionError()])

    def failing(policies: Policies) -> Any:
        for failure in failures:
            raise failure
        return refresh(policies)

    monkeypatch.setattr(Policies, "refresh", failing)
    with serving(tmp_path, follow=True) as address:
        save(stubborn_policy("LunarLander-v3", 2), tmp_path / "lander", version=8)
        wait_for(lambda: act(address, {"observation": LANDER}).json()["version"] == 8)


def test_without_a_token_only_this_machine_is_answered(tmp_path: Path) -> None:
    """The gate goes by the address that a connection came in on."""
    from serve.service.gate import Gate

    class App:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

    class Elsewhere:
        def __init__(self, server: str, token_digest: bytes | None) -> None:
            self._gate, self._server = Gate(App(), token_digest), server

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await self._gate({**scope, "server": (self._server, 8000)}, receive, send)

    for server, token_digest, status in (
        ("127.0.0.1", None, 200),
        ("192.0.2.7", None, 403),
        ("192.0.2.7", digest(TOKEN), 401),
    ):
        with running(Elsewhere(server, token_digest)) as address:
            assert httpx2.get(f"{address}/policies", timeout=PATIENCE).status_code == status
