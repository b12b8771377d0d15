"""Requests that arrive together are answered with one forward pass.

While one turn of the event loop reads what has arrived on all its connections, requests gather here; then they are
flown as one batch. A lone request waits for nothing. The bound on how many may gather bounds how long one waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from actors.distributions import Categorical
from actors.episode import Array
from actors.policy import Policy
from serve.protocol import Problem

MOST_WAITING_OBSERVATIONS = 16_384
"""In all requests that wait: some 20 ms of work."""


class Answers(NamedTuple):
    """Of one request: a list item for each observation."""

    actions: list[Any]
    spread: list[Any]
    """Probabilities, or means where actions are continuous."""


class _Pending(NamedTuple):
    policy: Policy
    observations: Array
    deterministic: bool
    seed: int | None
    answer: asyncio.Future[Answers]


class Batcher:
    """Gathers requests and flies them together, policy by policy.

    Args:
        most: requests that may wait at once; one more is refused.
        on_batch: told of how many observations each forward pass was.
    """

    def __init__(self, most: int, on_batch: Callable[[int], None]) -> None:
        self.most = most
        self._on_batch = on_batch
        self._pending: list[_Pending] = []
        self._observations = 0
        self._rng = np.random.default_rng()

    def submit(
        self, policy: Policy, observations: Array, deterministic: bool, seed: int | None
    ) -> asyncio.Future[Answers]:
        """Have observations [n, *obs], of the policy's dtype, answered at the end of this turn of the event loop.

        Raises:
            Problem: 503: too many requests wait.
        """
        full = self._observations and self._observations + len(observations) > MOST_WAITING_OBSERVATIONS
        if full or len(self._pending) >= self.most:
            raise Problem(503, "too many requests at once; try again in a second", retry_after=1)
        loop = asyncio.get_running_loop()
        if not self._pending:
            loop.call_soon(self._fly)
        answer: asyncio.Future[Answers] = loop.create_future()
        self._pending.append(_Pending(policy, observations, deterministic, seed, answer))
        self._observations += len(observations)
        return answer

    def _fly(self) -> None:
        pending, self._pending, self._observations = self._pending, [], 0
        groups: dict[int, list[_Pending]] = {}
        for one in pending:
            if not one.answer.cancelled():
                groups.setdefault(id(one.policy), []).append(one)
        for group in groups.values():
            try:
                self._answer(group)
            except Exception as error:  # whatever it is, its requests must hear of it
                for one in group:
                    if not one.answer.done():
                        one.answer.set_exception(error)

    def _answer(self, group: list[_Pending]) -> None:
        policy = group[0].policy
        distribution = policy.distribution
        observations = group[0].observations if len(group) == 1 else np.concatenate([one.observations for one in group])
        self._on_batch(len(observations))
        with np.errstate(all="ignore"):  # outputs that are not finite are told below
            parameters = policy.forward(observations)
            spread = policy.bounds.place(parameters)
        finite = np.isfinite(spread)
        if isinstance(distribution, Categorical):  # digits beyond the seventh are not float32's
            spread = distribution.probabilities(parameters).astype(np.float64).round(7)
        actions = policy.flyable(distribution.mode(parameters))
        spreads, greedy = spread.tolist(), actions.tolist()
        end = 0
        for one in group:
            start, end = end, end + len(one.observations)
            if not finite[start:end].all():
                one.answer.set_exception(Problem(422, "the policy's output for it is not finite", "observation"))
                continue
            acted = greedy[start:end]
            if not one.deterministic:
                rng = self._rng if one.seed is None else np.random.default_rng(one.seed)
                noise = distribution.noise(rng, (end - start,))
                acted = policy.flyable(distribution.sample(parameters[start:end], noise)).tolist()
            one.answer.set_result(Answers(acted, spreads[start:end]))
