"""What a policy remembers goes to and fro with requests: any replica answers the next one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import httpx2
import numpy as np
import pytest

from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.policy import Policy
from serve.client import AsyncPolicyClient, PolicyClient
from serve.service.http import Service
from serve.service.policies import Policies, require_same_spaces
from serve.service.request_limits import HttpConfig
from tests.actors.examples import policy_for
from tests.serve.served import LANDER, PATIENCE, PATIENT, running, save

NETWORK = {"memory": "lstm", "memory_size": 3}


@pytest.fixture(scope="module")
def remembering() -> Policy:
    return policy_for("LunarLander-v3", seed=4, **NETWORK)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, remembering: Policy) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("policies")
    sources = {
        "remembers": save(remembering, directory / "remembers"),
        "plain": save(policy_for("LunarLander-v3"), directory / "plain"),
    }
    limits = HttpConfig(access_log=False, body_seconds=PATIENCE)
    with running(Service(Policies(sources), limits, None, False)) as address:
        yield address


def act(address: str, body: Any) -> httpx2.Response:
    return httpx2.post(f"{address}/act", json=body, timeout=PATIENCE)


def test_each_answer_has_what_the_next_request_brings_back(address: str, remembering: Policy) -> None:
    rng, memory, sent = np.random.default_rng(0), remembering.start(1), None
    for _ in range(30):
        observation = rng.standard_normal((1, 8), np.float32)
        step = remembering.step(observation, memory)
        answer = act(address, {"observation": observation[0].tolist(), "memory": sent}).json()
        assert answer["action"] == step.actions[0]
        np.testing.assert_allclose(answer["probabilities"], step.shown["probabilities"][0], atol=1e-5)
        memory, sent = step.memory, answer["memory"]
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(sent), "<f4"), memory["core"][0], atol=1e-5)
    assert len(base64.b64decode(sent)) == 24


def test_many_have_their_own(address: str, remembering: Policy) -> None:
    observations = np.random.default_rng(1).standard_normal((2, 4, 8)).astype(np.float32)
    first = act(address, {"observations": observations[0].tolist()}).json()
    some = [first["memories"][0], None, first["memories"][2], first["memories"][3]]
    second = act(address, {"observations": observations[1].tolist(), "memories": some}).json()
    memory = remembering.step(observations[0], remembering.start(4)).memory
    memory["core"][1] = 0
    expected = remembering.step(observations[1], memory)
    np.testing.assert_allclose(second["probabilities"], expected.shown["probabilities"], atol=1e-5)


def test_requests_that_arrive_together_keep_their_own(address: str, remembering: Policy) -> None:
    observations = np.random.default_rng(2).standard_normal((5, 20, 8)).astype(np.float32)

    async def fly(client: AsyncPolicyClient, slot: int) -> list[Any]:
        async with client.episode() as flight:
            return [(await flight.act(observations[t, slot])).probabilities for t in range(5)]

    async def all_of_them() -> list[list[Any]]:
        async with AsyncPolicyClient(address, **PATIENT) as client:
            return await asyncio.gather(*(fly(client, slot) for slot in range(20)))

    found, memory = asyncio.run(all_of_them()), remembering.start(20)
    for t in range(5):
        step = remembering.step(observations[t], memory)
        np.testing.assert_allclose([each[t] for each in found], step.shown["probabilities"], atol=1e-5)
        memory = step.memory


@pytest.mark.parametrize("name", ["remembers", "plain"])
def test_the_client_hides_it(address: str, remembering: Policy, name: str) -> None:
    env, total, done = gymnasium.make("LunarLander-v3"), 0.0, False
    observation, _ = env.reset(seed=7)
    with PolicyClient(address, name, **PATIENT) as client, client.episode() as flight:
        while not done:
            action = flight.act(observation)
            assert (action.memory is None) == (name == "plain")
            observation, reward, terminated, truncated, _ = env.step(action.action)
            total, done = total + float(reward), terminated or truncated
    policy = remembering if name == "remembers" else policy_for("LunarLander-v3")
    assert total == pytest.approx(fly_episodes(policy, [7])[0][0], abs=1e-3)


NAN = base64.b64encode(np.full(6, np.nan, "<f4").tobytes()).decode()
ZEROS = base64.b64encode(np.zeros(6, "<f4").tobytes()).decode()
SEND_BACK = "no memory of this policy: send back the base64 of an answer, of 24 bytes"


@pytest.mark.parametrize(
    ("request_", "field", "said"),
    [
        ({"observation": LANDER, "memory": "AAAA"}, "memory", SEND_BACK),
        ({"observation": LANDER, "memory": "AAAAA"}, "memory", SEND_BACK),
        ({"observation": LANDER, "memory": "ä" * 32}, "memory", SEND_BACK),
        ({"observation": LANDER, "memory": ZEROS + ZEROS}, "memory", SEND_BACK),
        ({"observation": LANDER, "memory": ""}, "memory", SEND_BACK),
        ({"observation": LANDER, "memory": NAN}, "memory", SEND_BACK),
        ({"observation": LANDER, "memory": 3}, "memory", "expected str | null"),
        ({"observation": LANDER, "memories": [ZEROS]}, "memories", "memory goes with observation"),
        ({"observations": [LANDER], "memory": ZEROS}, "memory", "memories with observations"),
        ({"observations": [LANDER], "memories": [ZEROS, ZEROS]}, "memories", "2 memories for 1 observations"),
        ({"observations": [LANDER, LANDER], "memories": [None, NAN]}, "memories[1]", SEND_BACK),
        ({"observation": LANDER, "memory": ZEROS, "policy": "plain"}, "memory", "has no memory: leave it out"),
    ],
)
def test_what_is_no_memory(address: str, request_: dict[str, Any], field: str, said: str) -> None:
    answer = act(address, request_)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_a_policy_without_one_takes_and_gives_none(address: str) -> None:
    answer = act(address, {"observation": LANDER, "memory": None, "policy": "plain"}).json()
    assert "memory" not in answer
    names = [(served["name"], served["memory"]) for served in httpx2.get(f"{address}/policies").json()["policies"]]
    assert names == [("remembers", "lstm"), ("plain", "none")]


def test_another_memory_is_no_newer_version(remembering: Policy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it remembers 4 numbers, the one being served 6: serve it under another name"):
        require_same_spaces(remembering, policy_for("LunarLander-v3", memory="gru", memory_size=4))
