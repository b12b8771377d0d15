"""What a policy is worth exactly, where an environment tells its transitions: no sampled episodes, and no luck."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.episode import Array
from actors.making import make_gymnasium
from actors.policy import Policy

MOST_STEPS = 1_000
"""Steps of an episode where the environment sets no limit."""


class Model:
    """A Gymnasium environment's own transitions, ``env.unwrapped.P``, as arrays.

    Args:
        env_id: Taxi-v3, FrozenLake8x8-v1, CliffWalking-v1 and their like.
    """

    def __init__(self, env_id: str) -> None:
        env = make_gymnasium(env_id)
        transitions: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = env.unwrapped.P  # type: ignore[attr-defined]
        self.start: Array = np.asarray(env.unwrapped.initial_state_distrib, np.float64)  # type: ignore[attr-defined]
        self.limit = env.spec.max_episode_steps if env.spec and env.spec.max_episode_steps else MOST_STEPS
        env.close()
        size = len(transitions), len(transitions[0])
        self.goes: Array = np.zeros((*size, size[0]))
        """[S, A, S]: probabilities of where an action leads, but for terminal states."""
        self.rewards: Array = np.zeros(size)
        """[S, A]: the mean reward."""
        for state, actions in transitions.items():
            for action, outcomes in actions.items():
                for probability, following, reward, is_over in outcomes:
                    self.rewards[state, action] += probability * reward
                    self.goes[state, action, following] += 0 if is_over else probability

    def value(self, actions: Array) -> float:
        """The mean undiscounted return of taking ``actions`` [S], in episodes of ``limit`` steps at most."""
        rows = np.arange(len(actions))
        goes, rewards = self.goes[rows, actions], self.rewards[rows, actions]
        values = np.zeros(len(actions))
        for _ in range(self.limit):
            values = rewards + goes @ values
        return float(self.start @ values)

    def best(self, gamma: float = 0.9999) -> float:
        """``value`` of the best actions that do not ask for the time, by value iteration with this discount."""
        values = np.zeros(len(self.start))
        for _ in range(20_000):
            before, values = values, (self.rewards + gamma * self.goes @ values).max(1)
            if np.abs(values - before).max() < 1e-10:
                break
        return self.value((self.rewards + gamma * self.goes @ values).argmax(1))


def greedy_actions(policy: Policy) -> Array:
    """[S]: what a policy of numbered observations does in each."""
    space: Any = policy.spec.observation
    return np.asarray(policy.act(space.start + np.arange(space.n)))
