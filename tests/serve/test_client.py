"""The client: what it gives, and what it hides from its user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import httpx2
import msgspec
import numpy as np
import pytest

from actors.environments import fitting
from serve.answers import action_of
from serve.client import AsyncPolicyClient, PolicyClient, RequestError, UnavailableError
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from serve.service.tokens import digest
from tests.actors import fake_environments  # noqa: F401 registers Painted-v0
from tests.actors.examples import policy_for
from tests.serve.served import LANDER, PATIENCE, PATIENT, running, save, serving, valued

TOKEN = "a token of more than sixteen"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("policies")) as address:
        yield address


def test_it_flies(address: str) -> None:
    env = gymnasium.make("LunarLander-v3")
    observation, _ = env.reset(seed=1)
    done, steps = False, 0
    with PolicyClient(address, **PATIENT) as client:
        while not done:
            observation, _, terminated, truncated, _ = env.step(client.act(observation).action)
            done, steps = terminated or truncated, steps + 1
    assert steps > 30


def test_one_and_many(address: str) -> None:
    observations = np.random.default_rng(0).standard_normal((100, 8), np.float32)
    with PolicyClient(address, **PATIENT) as client, PolicyClient(address, policy="pendulum", **PATIENT) as pendulum:
        many = client.act_many(observations)
        assert many.action.shape == (100,)
        assert many.probabilities is not None
        assert many.probabilities.shape == (100, 4)
        assert many.q_values is None
        assert client.act(observations[3]).action == many.action[3]
        assert (many.policy, many.version) == ("lander", 7)
        one = pendulum.act(observations[0, :3], deterministic=False, seed=1)
        assert one.action.shape == (1,)
        assert one.mean is not None
        assert one.std is not None
        assert [served["name"] for served in client.policies()] == ["lander", "pendulum"]


PARTS = {"eye": np.arange(6, dtype=np.uint8).reshape(2, 3), "speed": np.array([2.0])}


@pytest.mark.parametrize(
    ("observations", "many", "sent"),
    [
        (PARTS["eye"], False, "AAECAwQF"),
        ([PARTS["eye"][0], PARTS["eye"][1]], False, "AAECAwQF"),
        (np.stack([PARTS["eye"]] * 2), True, ["AAECAwQF", "AAECAwQF"]),
        ([PARTS["eye"]] * 2, True, ["AAECAwQF", "AAECAwQF"]),
        (PARTS, False, {"eye": "AAECAwQF", "speed": [2.0]}),
        ([PARTS], True, [{"eye": "AAECAwQF", "speed": [2.0]}]),
        ((PARTS["eye"], 3), False, ["AAECAwQF", 3]),
        (PARTS["eye"].tolist(), False, [[0, 1, 2], [3, 4, 5]]),
        (PARTS["eye"], True, [[0, 1, 2], [3, 4, 5]]),  # two rows of bytes, which are no pictures
    ],
)
def test_pictures_are_sent_as_their_bytes(observations: Any, many: bool, sent: Any) -> None:
    with PolicyClient() as client:
        body = msgspec.json.decode(client._body(observations, many))
    assert body["observations" if many else "observation"] == sent


def test_a_policy_is_asked_what_it_makes_of_pictures(tmp_path: Path) -> None:
    policy = policy_for("Painted-v0", trunk="4x4/2")
    pictures = policy.spec.observation.sample(np.random.default_rng(0), 5)
    service = Service(Policies({"one": save(policy, tmp_path / "one")}), HttpConfig(access_log=False, max_body=1))
    with running(service) as address, PolicyClient(address, **PATIENT) as client:
        assert [client.act(picture).action for picture in pictures] == policy.act(pictures).tolist()
        assert client.act(pictures[0].tolist()).action == policy.act(pictures)[0]
        with pytest.raises(RequestError, match="413"):
            client.act_many(np.repeat(pictures, 5, axis=0))


def test_values_are_given_where_a_policy_goes_by_them(tmp_path: Path) -> None:
    service = Service(Policies({"dqn": save(valued("LunarLander-v3", 1, -2, 30, 4), tmp_path)}), HttpConfig())
    with running(service) as address, PolicyClient(address, **PATIENT) as client:
        one, many = client.act(LANDER), client.act_many([LANDER] * 3)
    assert (one.action, many.action.tolist()) == (2, [2, 2, 2])
    np.testing.assert_array_equal(one.q_values, [1, -2, 30, 4])
    np.testing.assert_array_equal(many.q_values, [[1, -2, 30, 4]] * 3)
    assert (one.probabilities, one.mean, one.std) == (None, None, None)


def test_actions_of_several_parts_come_as_the_environment_takes_them(tmp_path: Path) -> None:
    policy = policy_for("tests.actors.fake_environments:Orders-v0")
    service = Service(Policies({"one": save(policy, tmp_path)}), HttpConfig())
    env = gymnasium.make("tests.actors.fake_environments:Orders-v0")
    with running(service) as address, PolicyClient(address, **PATIENT) as client:
        seen = [env.observation_space.sample() for _ in range(5)]
        answers, many = [client.act(one) for one in seen], client.act_many(seen)
    flown = fitting(policy.act(policy.spec.observation.stack(seen)), env.action_space)
    for expected, *found in zip(flown, (answer.action for answer in answers), many.action, strict=True):
        for action in found:
            assert isinstance(action["arms"], tuple)
            assert (action["lift"], action["gears"].tolist()) == (expected["lift"], expected["gears"].tolist())
            np.testing.assert_allclose(action["arms"][0], expected["arms"][0], rtol=1e-6)
            np.testing.assert_array_equal(action["arms"][1], expected["arms"][1])
    assert answers[0].probabilities["lift"].shape == (3,)
    assert many.probabilities["arms"]["1"].shape == (5, 2)
    assert many.mean["arms"]["0"].shape == (5, 2)
    np.testing.assert_allclose(answers[0].std["arms"]["0"], policy.distribution.shown_once["std"]["arms"]["0"])


def test_parts_of_one_shape_stay_parts() -> None:
    answer = {"policy": "p", "version": 1, "action": {"0": [0, 1], "1": {"0": 2, "1": [0.5, 0.25]}}}
    first, (second, third) = action_of(answer, many=False).action
    assert (first.tolist(), second, third.tolist()) == ([0, 1], 2, [0.5, 0.25])
    assert first.dtype.kind == "i"
    answer = {"policy": "p", "version": 1, "actions": [{"b": 1, "a": 0.5}] * 2}
    assert action_of(answer, many=True).action == [{"b": 1, "a": 0.5}] * 2


def test_asynchronous(address: str) -> None:
    async def fly() -> Any:
        async with AsyncPolicyClient(address, **PATIENT) as client:
            answers = await asyncio.gather(*(client.act(LANDER) for _ in range(50)))
            return answers, await client.act_many([LANDER] * 3), await client.policies()

    answers, many, policies = asyncio.run(fly())
    assert {answer.action for answer in answers} == {many.action[0]}
    assert len(policies) == 2


class Counted:
    """An application, and how many requests it has had."""

    def __init__(self, app: Any) -> None:
        self._app, self.requests = app, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += scope["type"] == "http"
        await self._app(scope, receive, send)


def test_a_refusal_is_told_and_not_repeated(tmp_path: Path) -> None:
    policies = Policies({"lander": save(policy_for("LunarLander-v3"), tmp_path)})
    counted = Counted(Service(policies, HttpConfig(body_seconds=PATIENCE, access_log=False)))
    refusals = {"lander": r"422: .* takes 8 numbers \(observation\)", "who": "unknown policy 'who'"}
    with running(counted) as address:
        for policy, said in refusals.items():
            with PolicyClient(address, policy=policy, **PATIENT) as client, pytest.raises(RequestError, match=said):
                client.act([1, 2])
    assert counted.requests == 2


def test_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, token_digest=digest(TOKEN)) as address:
        with PolicyClient(address, **PATIENT) as client, pytest.raises(RequestError, match="401"):
            client.act(LANDER)
        with PolicyClient(address, token=TOKEN, **PATIENT) as client:
            assert client.act(LANDER).version == 7
            assert TOKEN not in repr(vars(client).get("_policy"))


class Flaky:
    """Fails ``failures`` times in every way a service can, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures, self.requests = failures, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.requests += 1
        if self.requests > self.failures:
            body = b'{"policy":"lander","version":1,"action":2,"probabilities":[0,0,1,0]}'
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        status = (500, 502, 503, 504, 404)[self.requests % 5]
        headers = [(b"retry-after", b"0.01")] if status == 503 else [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if status != 504:  # 504: the connection is lost with the body
            await send({"type": "http.response.body", "body": b"x" * (100 if status != 503 else 0)})


def test_what_fails_is_tried_again() -> None:
    flaky = Flaky(5)
    with running(flaky) as address, PolicyClient(address, **PATIENT) as client:
        assert client.act(LANDER).action == 2
    assert flaky.requests == 6

    async def fly(address: str) -> Any:
        async with AsyncPolicyClient(address, **PATIENT) as client:
            return await client.act(LANDER)

    flaky = Flaky(3)
    with running(flaky) as address:
        assert asyncio.run(fly(address)).action == 2


def test_patience_ends() -> None:
    with (
        running(Flaky(10**9)) as address,
        PolicyClient(address, patience=0.5) as client,
        pytest.raises((UnavailableError, httpx2.TransportError)),
    ):
        client.act(LANDER)
    with PolicyClient("http://127.0.0.1:1", patience=0.3) as client, pytest.raises(httpx2.ConnectError):
        client.act(LANDER)
