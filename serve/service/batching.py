"""Requests that arrive together are answered with one forward pass.

While one turn of the event loop reads what has arrived on all its connections, requests gather here; then they are
flown as one batch. A lone request waits for nothing. The bound on how many may gather bounds how long one waits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from actors import trees
from actors.masks import MASK, allowed
from actors.pictures import pictures_in
from actors.policy import Memory, Policy
from actors.trees import Array, Tree
from serve.service.protocol import Problem

MOST_WAITING_OBSERVATIONS = 16_384
"""In all requests that wait, and fewer of pictures: some 20 ms of work."""
_COUNTS, _KEPT = 256, 4096
"""Bytes of a picture that count as an observation, and bytes that a policy remembers of an episode."""


class Answers(NamedTuple):
    """What one request is answered: a list item for each of its observations."""

    actions: list[Any]
    shown: dict[str, Any]
    """What the distribution shows of each choice, lists in place of arrays: see ``Distribution.shown``."""
    memory: Memory
    """What the policy remembers then, a row for each."""


class _Pending(NamedTuple):
    policy: Policy
    observations: Tree
    memory: Memory
    size: int
    """How many observations they are."""
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
        self,
        policy: Policy,
        observations: Tree,
        deterministic: bool,
        seed: int | None,
        memory: Memory | None = None,
    ) -> asyncio.Future[Answers]:
        """Have observations, a column of the policy's space, answered at the end of this turn of the event loop.

        ``memory`` is what the policy remembers of their episodes; None: they begin.

        Raises:
            Problem: 503: too many requests wait.
        """
        count = trees.length(observations)
        pixels = sum(picture.inputs for _, picture in pictures_in(policy.spec.observation))
        memory = policy.start(count) if memory is None else memory
        kept = sum(rows.nbytes for rows in memory.values()) // count
        work = count * max(1, pixels // _COUNTS, kept // _KEPT)
        full = self._observations and self._observations + work > MOST_WAITING_OBSERVATIONS
        if full or len(self._pending) >= self.most:
            raise Problem(503, "too many requests at once; try again in a second", retry_after=1)
        loop = asyncio.get_running_loop()
        if not self._pending:
            loop.call_soon(self._fly)
        answer: asyncio.Future[Answers] = loop.create_future()
        self._pending.append(
            _Pending(
                policy,
                observations,
                memory,
                count,
                deterministic,
                seed,
                answer,
            )
        )
        self._observations += work
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
        ends = list(itertools.accumulate(one.size for one in group))
        spans = [*itertools.pairwise([0, *ends])]
        observations = trees.concatenate([one.observations for one in group])
        memory = trees.concatenate([one.memory for one in group])
        self._on_batch(ends[-1])
        with np.errstate(all="ignore"):  # outputs that are not finite are told below
            step = policy.step(observations, memory, self._noise(group, spans))
            columns = step.shown
        can_act = policy.distribution.can_act(allowed(observations, policy.spec)) if policy.spec.is_masked else None
        numbers = [step.parameters, *(column for _, column in trees.leaves(columns))]
        finite = np.isfinite(np.concatenate(numbers, axis=1)).all(axis=1)
        is_well = finite.all() and (can_act is None or can_act.all())
        actions = _one_by_one(trees.map_leaves(np.ndarray.tolist, step.actions))
        shown = trees.map_leaves(np.ndarray.tolist, columns)
        for one, (start, end) in zip(group, spans, strict=True):
            if is_well or (finite[start:end].all() and (can_act is None or can_act[start:end].all())):
                rows = trees.rows(shown, slice(start, end))
                remembered = trees.rows(step.memory, slice(start, end))
                one.answer.set_result(Answers(actions[start:end], rows, remembered))
            elif can_act is not None and not can_act[start:end].all():
                one.answer.set_exception(Problem(422, f"{MASK} forbids every action", f"observation.{MASK}"))
            else:
                one.answer.set_exception(Problem(422, "the policy's output for it is not finite", "observation"))

    def _noise(self, group: list[_Pending], spans: list[tuple[int, int]]) -> Array | None:
        """Each request's own, zeros for those that ask for the most likely action; None: all of them do."""
        if all(one.deterministic for one in group):
            return None
        policy = group[0].policy
        noise = np.zeros((spans[-1][1], len(policy.distribution.labels)), np.float32)
        for one, (start, end) in zip(group, spans, strict=True):
            if not one.deterministic:
                rng = self._rng if one.seed is None else np.random.default_rng(one.seed)
                noise[start:end] = policy.distribution.noise(rng, (end - start,))
        return noise


def _one_by_one(actions: Any) -> list[Any]:
    """A list of actions, or lists in a tree of parts, as a list with an object of parts for each."""
    if not isinstance(actions, dict):
        return list(actions)
    columns = map(_one_by_one, actions.values())
    return [dict(zip(actions, action, strict=True)) for action in zip(*columns, strict=True)]
