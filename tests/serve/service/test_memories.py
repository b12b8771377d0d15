"""A policy that acts for a return is told by requests what it is and what was given: any replica answers the next."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import gymnasium
import httpx2
import numpy as np
import pytest

from actors.policy import Policy
from serve.client import AsyncPolicyClient, PolicyClient, RequestError
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from tests.actors.examples import policy_for
from tests.serve.served import LANDER, PATIENCE, PATIENT, running, save


@pytest.fixture(scope="module")
def asked() -> Policy:
    network: dict[str, Any] = {"memory": "transformer", "memory_size": 8, "memory_window": 5}
    policy = policy_for("LunarLander-v3", seed=2, target_return=90.0, **network)
    return Policy(policy.spec, policy.weights | {"w1": policy.weights["w1"] / 10})  # unsure of itself


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, asked: Policy) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("policies")
    sources = {
        "asked": save(asked, directory / "asked"),
        "gru": save(policy_for("LunarLander-v3", memory="gru"), directory / "gru"),
        "plain": save(policy_for("LunarLander-v3"), directory / "plain"),
    }
    limits = HttpConfig(access_log=False, body_seconds=PATIENCE)
    with running(Service(Policies(sources), limits, None, False)) as address:
        yield address


def act(address: str, body: Any) -> httpx2.Response:
    return httpx2.post(f"{address}/act", json=body, timeout=PATIENCE)


@pytest.mark.parametrize("target", [None, -40.0])
def test_rewards_are_taken_off_the_return_that_was_asked_for(address: str, asked: Policy, target: float | None) -> None:
    rng, sent, reward = np.random.default_rng(0), None, None
    memory = asked.start(1, None if target is None else np.array([target]))
    for t in range(20):
        observation = rng.standard_normal((1, 8), np.float32)
        step = asked.step(observation, memory)
        body: dict[str, Any] = {"observation": observation[0].tolist(), "deterministic": True}
        body |= {"target_return": target} if t == 0 else {"memory": sent, "reward": reward}
        answer = act(address, body).json()
        assert answer["action"] == step.actions[0]
        np.testing.assert_allclose(answer["probabilities"], step.shown["probabilities"][0], atol=1e-5)
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(answer["memory"]), "<f4"), step.memory["core"][0])
        sent, reward = answer["memory"], float(np.round(rng.standard_normal(), 3))
        memory = asked.rewarded(step.memory, np.array([reward], np.float32))


def test_many_have_their_own(address: str, asked: Policy) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    observations = rows.tolist()
    body: dict[str, Any] = {"observations": observations, "target_returns": [10, None, -3], "deterministic": True}
    first = act(address, body).json()
    memory = asked.step(rows, asked.start(3, np.array([10, 90, -3]))).memory
    some = {"memories": [*first["memories"][:2], None], "rewards": [1, 2.5, None], "target_returns": [None, None, 7]}
    second = act(address, {"observations": observations, "deterministic": True, **some}).json()
    memory = asked.rewarded(memory, np.array([1, 2.5, 0], np.float32))
    memory["core"][2] = asked.start(1, np.array([7]))["core"]
    expected = asked.step(rows, memory).shown["probabilities"]
    np.testing.assert_allclose(second["probabilities"], expected, atol=1e-5)


def test_only_those_that_act_for_a_return_are_sampled_by_default(address: str) -> None:
    for name, sampled in (("asked", True), ("gru", False)):
        body = {"observations": [LANDER] * 500, "policy": name, "seed": 1}
        assert (len(set(act(address, body).json()["actions"])) > 1) == sampled
        assert len(set(act(address, body | {"deterministic": True}).json()["actions"])) == 1
    with PolicyClient(address, **PATIENT) as client:
        told = {one["name"]: (one["target_return"], one["sampled"]) for one in client.policies()}
    assert told == {"asked": (90.0, True), "gru": (None, False), "plain": (None, False)}


def test_the_client_hides_it(address: str, asked: Policy) -> None:
    rng, rewards = np.random.default_rng(3), [None, 2.0, np.float64(-1.5), 4]
    observations = rng.standard_normal((4, 1, 8)).astype(np.float32)

    async def fly() -> list[Any]:
        async with AsyncPolicyClient(address, **PATIENT) as client, client.episode(30) as flight:
            steps = zip(observations, rewards, strict=True)
            return [(await flight.act(row[0], reward, deterministic=True)).action for row, reward in steps]

    with PolicyClient(address, **PATIENT) as client, client.episode(target_return=30) as flight:
        steps = zip(observations, rewards, strict=True)
        actions = [flight.act(row[0], reward, deterministic=True).action for row, reward in steps]
        with pytest.raises(RequestError, match=r"422: a memory goes with the reward given since, .* \(reward\)"):
            flight.act(LANDER)
    memory, expected = asked.start(1, np.array([30])), []
    for row, reward in zip(observations, rewards, strict=True):
        step = asked.step(row, asked.rewarded(memory, np.array([reward or 0], np.float32)))
        memory = step.memory
        expected.append(step.actions[0])
    assert actions == asyncio.run(fly()) == expected


def test_an_episode_in_its_environment(address: str) -> None:
    env, reward, done, steps = gymnasium.make("LunarLander-v3"), None, False, 0
    observation, _ = env.reset(seed=7)
    with PolicyClient(address, **PATIENT) as client, client.episode(target_return=100) as flight:
        while not done:
            observation, reward, terminated, truncated, _ = env.step(flight.act(observation, reward, seed=steps).action)
            done, steps = terminated or truncated, steps + 1
    assert steps > 30


NO_RETURN = "this policy for LunarLander-v3 acts for no return in particular: leave it out"
GIVEN_SINCE = "a memory goes with the reward given since, which is taken off the return to come"
BEFORE = "a reward goes with the memory of the answer before it"
BEGINS = "a return is asked for where an episode begins; from then on the memory has it"


@pytest.mark.parametrize(
    ("request_", "field", "said"),
    [
        ({"observation": LANDER, "reward": 1}, "reward", BEFORE),
        ({"observation": LANDER, "memory": "one"}, "reward", GIVEN_SINCE),
        ({"observation": LANDER, "memory": "one", "reward": 1, "target_return": 3}, "target_return", BEGINS),
        ({"observations": [LANDER] * 2, "memories": [None, "one"]}, "rewards[1]", GIVEN_SINCE),
        ({"observations": [LANDER] * 2, "memories": [None, "one"], "rewards": [0, 0]}, "rewards[0]", BEFORE),
        ({"observations": [LANDER], "rewards": [1, 2]}, "rewards", "2 rewards for 1 observations"),
        ({"observations": [LANDER], "target_returns": []}, "target_returns", "0 target_returns for 1 observations"),
        ({"observations": [LANDER], "target_return": 3}, "target_return", "target_returns with observations"),
        ({"observation": LANDER, "rewards": [3]}, "rewards", "reward goes with observation"),
        ({"observation": LANDER, "target_return": 1e39}, "target_return", "expected float <= 1e+30"),
        ({"observation": LANDER, "target_return": "3"}, "target_return", "expected float"),
        ({"observation": LANDER, "target_return": 3, "policy": "plain"}, "target_return", NO_RETURN),
        ({"observation": LANDER, "reward": 3, "policy": "gru"}, "reward", NO_RETURN),
        ({"observations": [LANDER], "rewards": [3], "policy": "gru"}, "rewards", NO_RETURN),
    ],
)
def test_what_does_not_go_together(address: str, request_: dict[str, Any], field: str, said: str) -> None:
    one = act(address, {"observation": LANDER}).json()["memory"]
    filled = {name: one if value == "one" else value for name, value in request_.items()}
    if "memories" in filled:
        filled["memories"] = [text and one for text in filled["memories"]]
    answer = act(address, filled)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert said in answer.json()["detail"]


def test_a_memory_of_any_numbers_is_answered(address: str, asked: Policy) -> None:
    row = asked.start(1)["core"][0]
    row[9] = -1e30  # steps
    body = {"observation": LANDER, "memory": base64.b64encode(row.tobytes()).decode(), "reward": 0}
    assert act(address, body).status_code == 200


def test_what_many_would_remember_is_bounded_before_it_takes_memory(address: str, asked: Policy) -> None:
    size = asked.start(1)["core"].shape[1]
    body = {"observations": [LANDER] * 3, "policy": "asked"}
    assert act(address, body).status_code == 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.service.memories.MOST_NUMBERS", 2 * size)
        answer = act(address, body)
    assert answer.status_code == 422
    assert f"3 observations at once; of a policy that remembers {size} numbers 2 go in a request" in answer.text
