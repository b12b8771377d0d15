"""Requests that are flown together get what they would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from actors.discrete import Categorical
from actors.environments import describe
from actors.policy import Policy
from serve.service.batching import MOST_WAITING_OBSERVATIONS, Batcher
from serve.service.protocol import MOST_OBSERVATIONS, Problem
from tests.actors import fake_environments  # noqa: F401 registers Painted-v0
from tests.actors.examples import policy_for, random_policy
from tests.serve.served import valued

RNG = np.random.default_rng(0)


def run(go: Callable[[Batcher], Coroutine[Any, Any, Any]], most: int = 256) -> tuple[Any, list[int]]:
    batches: list[int] = []

    async def main() -> Any:
        return await go(Batcher(most, batches.append))

    return asyncio.run(main()), batches


VALUED = valued("LunarLander-v3", -1, 2.5, 0, 2, epsilon=0.9)
SQUASHED = random_policy(describe("Pendulum-v1").policy_spec(hidden_sizes=(8,), distribution="squashed_gaussian"))


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "Pendulum-v1"])
def test_together_as_alone(env_id: str) -> None:
    policy = policy_for(env_id)
    shape = policy.spec.observation.shape
    requests = [RNG.standard_normal((size, *shape), np.float32) for size in (1, 3, 1, 10)]

    async def together(batcher: Batcher) -> Any:
        return await asyncio.gather(*(batcher.submit(policy, rows, True, None) for rows in requests))

    answers, batches = run(together)
    assert batches == [15], "one forward pass"
    for rows, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer.actions, policy.act(rows), rtol=1e-6)
        parameters = policy.forward(rows)
        torques = 2 * parameters  # Pendulum's lie within ±2
        if isinstance(policy.distribution, Categorical):
            expected = {"probabilities": policy.distribution.probabilities(parameters)}
        else:
            expected = {"mean": torques}
        ((name, shown),) = answer.shown.items()
        np.testing.assert_allclose(shown, expected[name], atol=1e-6)


def test_several_policies_in_one_turn() -> None:
    policies = [policy_for("LunarLander-v3", seed) for seed in range(3)]
    rows = RNG.standard_normal((5, 8), np.float32)

    async def mixed(batcher: Batcher) -> Any:
        return await asyncio.gather(*(batcher.submit(policies[i % 3], rows, True, None) for i in range(6)))

    answers, batches = run(mixed)
    assert batches == [10, 10, 10]
    for i, answer in enumerate(answers):
        assert answer.actions == policies[i % 3].act(rows).tolist()


def test_a_seed_repeats_whoever_flies_beside() -> None:
    policy = policy_for("LunarLander-v3")
    rows = np.zeros((50, 8), np.float32)

    def sampled(others: int) -> Callable[[Batcher], Coroutine[Any, Any, Any]]:
        async def go(batcher: Batcher) -> Any:
            beside = [batcher.submit(policy, rows, False, None) for _ in range(others)]
            answer = await batcher.submit(policy, rows, False, 5)
            await asyncio.gather(*beside)
            return answer.actions

        return go

    assert run(sampled(0))[0] == run(sampled(3))[0]
    assert len(set(run(sampled(0))[0])) > 1


@pytest.mark.parametrize("policy", [policy_for("Pendulum-v1"), SQUASHED, VALUED], ids=["plain", "squashed", "valued"])
def test_greedy_and_sampled_requests_share_a_forward_pass(policy: Policy) -> None:
    rows = RNG.standard_normal((20, *policy.spec.observation.shape), np.float32)

    async def mixed(batcher: Batcher) -> Any:
        asked = [(True, None), (False, 5), (True, 5), (False, None)]
        return await asyncio.gather(*(batcher.submit(policy, rows, *how) for how in asked))

    (greedy, seeded, also_greedy, sampled), batches = run(mixed)
    assert batches == [80]
    np.testing.assert_allclose(greedy.actions, policy.act(rows), rtol=1e-6)
    assert also_greedy.actions == greedy.actions
    np.testing.assert_allclose(seeded.actions, policy.act(rows, np.random.default_rng(5)), rtol=1e-6)
    assert sampled.actions not in (greedy.actions, seeded.actions)
    ((name, shown),) = greedy.shown.items()
    np.testing.assert_allclose(shown, policy.step(rows, {}).shown[name], rtol=1e-5)


def test_a_mask_is_heeded_and_one_that_forbids_all_is_its_own_requests_problem() -> None:
    policy = policy_for("tests.actors.fake_environments:OneOf-v0")

    def seeing(*mask: int) -> Any:
        return policy.spec.observation.stack([{"seen": [0.5, -0.5], "action_mask": mask}])

    async def go(batcher: Batcher) -> Any:
        asked = [seeing(0, 1, 0, 0), seeing(0, 0, 0, 0), seeing(1, 0, 0, 0)]
        return await asyncio.gather(*(batcher.submit(policy, each, False, 1) for each in asked), return_exceptions=True)

    (second, none, first), batches = run(go)
    assert batches == [3]
    assert (second.actions, first.actions) == ([2], [1])
    assert first.shown == {"probabilities": [[1, 0, 0, 0]]}
    assert isinstance(none, Problem)
    assert (none.status, none.detail, none.field) == (
        422,
        "action_mask forbids every action",
        "observation.action_mask",
    )


def test_one_too_many_is_refused_at_once() -> None:
    policy = policy_for("LunarLander-v3")
    rows = np.zeros((1, 8), np.float32)

    async def crowd(batcher: Batcher) -> Any:
        waiting = [batcher.submit(policy, rows, True, None) for _ in range(4)]
        with pytest.raises(Problem) as caught:
            batcher.submit(policy, rows, True, None)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        await asyncio.gather(*waiting)
        await batcher.submit(policy, rows, True, None)

    run(crowd, most=4)


def test_what_waits_is_bounded_by_its_observations_too() -> None:
    policy = policy_for("LunarLander-v3")
    rows = np.zeros((MOST_OBSERVATIONS, 8), np.float32)

    async def crowd(batcher: Batcher) -> Any:
        waiting = [batcher.submit(policy, rows, True, None) for _ in range(MOST_WAITING_OBSERVATIONS // len(rows))]
        with pytest.raises(Problem):
            batcher.submit(policy, rows[:1], True, None)
        await asyncio.gather(*waiting)
        await batcher.submit(policy, rows, True, None)

    run(crowd)


def test_fewer_pictures_may_wait() -> None:
    policy = policy_for("Painted-v0(size=64)", hidden_sizes=())
    rows = np.zeros((1, 64, 64, 3), np.uint8)
    most = MOST_WAITING_OBSERVATIONS // (rows.size // 256)

    async def crowd(batcher: Batcher) -> Any:
        waiting = [batcher.submit(policy, rows, True, None) for _ in range(most)]
        with pytest.raises(Problem):
            batcher.submit(policy, rows, True, None)
        await asyncio.gather(*waiting)

    run(crowd, most=most + 1)


def test_an_output_that_is_not_finite_is_its_own_requests_problem() -> None:
    policy = policy_for("LunarLander-v3", activation="relu", hidden_sizes=(64, 64, 64))
    well, ill = np.zeros((1, 8), np.float32), np.full((1, 8), 3e38, np.float32)

    async def go(batcher: Batcher) -> Any:
        return await asyncio.gather(
            *(batcher.submit(policy, rows, True, None) for rows in (well, ill, well)), return_exceptions=True
        )

    (first, second, third), _ = run(go)
    assert first == third
    assert isinstance(second, Problem)
    assert second.status == 422


def test_a_request_that_was_given_up_and_one_whose_policy_fails() -> None:
    good = policy_for("LunarLander-v3")

    class Failing(Policy):
        def step(self, *_: Any) -> Any:
            raise ZeroDivisionError

    bad = Failing(good.spec, good.weights)
    rows = np.zeros((1, 8), np.float32)

    async def go(batcher: Batcher) -> Any:
        given_up = batcher.submit(good, rows, True, None)
        given_up.cancel()
        return await asyncio.gather(
            batcher.submit(bad, rows, True, None), batcher.submit(good, rows, True, None), return_exceptions=True
        )

    (failed, answered), _ = run(go)
    assert isinstance(failed, ZeroDivisionError)
    assert answered.actions == good.act(rows).tolist()
