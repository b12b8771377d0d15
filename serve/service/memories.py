"""What policies remember of episodes, as requests bring it and answers give it, and what they are told beside it: the
reward that followed, and the return that they act for."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import numpy as np

from actors.cores import CORE
from actors.policy import Memory, Policy
from actors.trees import Array
from serve.service.protocol import MOST_NUMBERS, ActRequest, Problem

_FIELDS = (("memory", "memories"), ("reward", "rewards"), ("target_return", "target_returns"))
"""Those beside observation and beside observations."""


class _Given(NamedTuple):
    """What a request has beside its observations, of one kind."""

    field: str
    """Where it is, or would be."""
    values: list[Any]
    """One for each observation, None where it has none; nothing: not one is given."""

    def place(self, i: int) -> str:
        """Where the value for an observation is, or would be."""
        return f"{self.field}[{i}]" if self.field.endswith("s") else self.field


def memory_of(request: ActRequest, policy: Policy, count: int) -> Memory:
    """What a policy remembers of the episodes that the observations are of; where nothing is given they begin.

    Args:
        request: it has ``memory`` beside ``observation``, and ``memories`` beside ``observations``; of a policy that
            acts for a return also the reward that followed, and where an episode begins the return that it is for.
        policy: who is asked.
        count: observations.

    Raises:
        Problem: 422: it is no memory of this policy's, as an answer gives it, or lacks the reward that followed.
    """
    if count > 1:
        size = sum(rows.size for rows in policy.start(1).values())
        if count * size > MOST_NUMBERS:
            said = f"{count} observations at once; of a policy that remembers {size:,} numbers {MOST_NUMBERS // size}"
            raise Problem(422, f"{said} go in a request", "observations")
    if all(getattr(request, name) is None for names in _FIELDS for name in names):
        return policy.start(count)
    memories, rewards, targets = (_given(request, *names, count) for names in _FIELDS)
    env_id, own = policy.spec.env_id, policy.spec.target_return
    if own is None and (rewards.values or targets.values):
        field = (rewards if rewards.values else targets).field
        raise Problem(422, f"this policy for {env_id} acts for no return in particular: leave it out", field)
    asked = [own if value is None else value for value in targets.values]
    memory = policy.start(count, np.array(asked, np.float32) if asked else None)
    if memories.values and not memory:
        raise Problem(422, f"this policy for {env_id} has no memory: leave it out", memories.field)
    for i, text in enumerate(memories.values):
        if text is not None:
            memory[CORE][i] = _remembered(text, memory[CORE].shape[1], memories.place(i))
    if own is None:
        return memory
    return policy.rewarded(memory, _rewards(memories, rewards, targets, count))


def _rewards(memories: _Given, rewards: _Given, targets: _Given, count: int) -> Array:
    """What environments gave since they were acted in, [count] float32; 0 where episodes begin.

    Raises:
        Problem: 422: one is missing or too much, or a return is asked for in the middle of an episode.
    """
    nothing = [None] * count
    given = zip(memories.values or nothing, rewards.values or nothing, targets.values or nothing, strict=True)
    for i, (memory, reward, target) in enumerate(given):
        if memory is None and reward is not None:
            raise Problem(422, "a reward goes with the memory of the answer before it", rewards.place(i))
        if memory is not None and reward is None:
            said = "a memory goes with the reward given since, which is taken off the return to come"
            raise Problem(422, said, rewards.place(i))
        if memory is not None and target is not None:
            said = "a return is asked for where an episode begins; from then on the memory has it"
            raise Problem(422, said, targets.place(i))
    return np.array([reward or 0.0 for reward in rewards.values or nothing], np.float32)


def _given(request: ActRequest, one: str, many: str, count: int) -> _Given:
    """What a request has in one of two fields: ``one`` beside observation, ``many`` beside observations."""
    single = bool(request.observation)
    field, other = (one, many) if single else (many, one)
    if getattr(request, other) is not None:
        raise Problem(422, f"{one} goes with observation, {many} with observations", other)
    value = getattr(request, field)
    if value is None or single:
        return _Given(field, [] if value is None else [value])
    if len(value) != count:
        raise Problem(422, f"{len(value)} {many} for {count} observations; give one for each, or null", field)
    return _Given(field, value)


def _remembered(text: str, size: int, field: str) -> Array:
    try:
        numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    except (binascii.Error, ValueError):  # a letter that is none of base64, or bytes that are no whole numbers
        numbers = np.empty(0)
    if len(numbers) != size or not np.isfinite(numbers).all():
        raise Problem(422, f"no memory of this policy: send back the base64 of an answer, of {4 * size} bytes", field)
    return numbers


def memories_in(memory: Memory) -> list[str]:
    """A policy's memory as an answer gives it: for each episode the base64 of its float32 numbers."""
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in memory[CORE]]
