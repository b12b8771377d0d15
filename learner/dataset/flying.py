"""Flying: a policy as recordings are flown with it, and its whole episodes as a dataset takes them."""

from __future__ import annotations

import dataclasses

import numpy as np

from actors.core import CORE
from actors.errors import UserError
from actors.parts import num_continuous
from actors.policy import Memory, Policy, Step
from actors.seeds import Seed
from actors.spaces import Box
from actors.trees import Array, Tree, length

_BEYOND = np.float32(1e20)
"""Noise beside which no output of a network counts, and less than what a mask takes off."""


class Recorded(Policy):
    """A policy whose actions are noted as the environment takes them, a share of them uniformly random.

    Args:
        policy: who flies.
        epsilon: the share of actions that are random: of those that a mask allows, or between the bounds.
        deterministic: the others are the most likely ones; else they are sampled.
        seed: decides which are random, and what they are.

    Raises:
        UserError: ε is no share, or actions cannot be random.
    """

    def __init__(self, policy: Policy, epsilon: float, deterministic: bool, seed: Seed) -> None:
        super().__init__(policy.spec, policy.weights)
        self._epsilon, self._deterministic = epsilon, deterministic
        self._rng = np.random.default_rng(seed)
        self._bounds = require_random(policy, epsilon)

    def step(self, observations: Tree, memory: Memory, noise: Array | None = None) -> Step:
        """Act on a batch of observations: see ``Policy.step``."""
        count = length(observations)
        if self._deterministic:
            noise = None
        if not self._epsilon:
            step = super().step(observations, memory, noise)
            return dataclasses.replace(step, sampled=step.actions)
        explores = self._rng.random(count) < self._epsilon
        if self._bounds is None:  # most of such noise wins, of each choice: all are as likely
            shape = (count, self.distribution.size(self.spec))
            random = _BEYOND * (self._rng.random(shape, np.float32) - np.float32(0.5))
            noise = np.where(explores[:, None], random, np.float32(0) if noise is None else noise)
        step = super().step(observations, memory, noise)
        actions = step.actions
        if self._bounds is not None:
            actions = np.array(actions)
            low, high = self._bounds
            actions[explores] = self._rng.uniform(low, high, (int(explores.sum()), *low.shape))
            if self._core:  # which may remember what was done
                step.memory = {CORE: self._core.acted(step.memory[CORE], actions)}
        return dataclasses.replace(step, actions=actions, sampled=actions)

    def notes(self, parameters: Array, sampled: Array) -> dict[str, Array]:  # noqa: ARG002
        """Nothing: a dataset keeps none."""
        return {}


def require_random(policy: Policy, epsilon: float) -> tuple[Array, Array] | None:
    """The bounds between which continuous actions can be random, [*act] each; None: they are discrete, or none are.

    Raises:
        UserError: ε is no share; or it is more than 0, and actions lack a bound or have a continuous part.
    """
    if not 0 <= epsilon <= 1:
        raise UserError(f"epsilon must lie between 0 and 1, not {epsilon:g}")
    space = policy.spec.action
    if not isinstance(space, Box):
        if epsilon and num_continuous(space):
            raise UserError(f"{policy.spec.env_id}: actions with a continuous part cannot be random: leave epsilon out")
        return None
    low, high = (np.reshape(np.array(ends), space.shape) for ends in (space.low, space.high))
    if epsilon and not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError(f"{policy.spec.env_id}: actions without bounds cannot be random: leave epsilon out")
    return low, high
