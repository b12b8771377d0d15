"""Environments that tell their transitions, flown as columns: Taxi, FrozenLake and CliffWalking."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from actors.environment_name import parse
from actors.environments import EnvironmentInfo
from actors.episode import Array
from actors.making import make_gymnasium
from actors.seeds import Seed


class TransitionTable:
    """All slots of an environment stepped by its own table of transitions, ``env.unwrapped.P``, as Gymnasium does one.

    Args:
        info: of an environment that ``tells_transitions``.
        num_envs: slots.
        seed: decides where episodes start and actions lead.
        max_episode_steps: where episodes are cut if the environment has no limit; None: nowhere.
    """

    backend = "transitions"

    def __init__(self, info: EnvironmentInfo, num_envs: int, seed: Seed, max_episode_steps: int | None = None) -> None:
        env = make_gymnasium(info.env_id)
        told = env.unwrapped.P  # type: ignore[attr-defined]
        self._starts: Array = np.cumsum(env.unwrapped.initial_state_distrib)  # type: ignore[attr-defined]
        env.close()
        most = max(len(outcomes) for actions in told.values() for outcomes in actions.values())
        shape = (len(told), len(told[0]), most)
        self._passed: Array = np.ones(shape)
        """[S, A, outcomes]: the probability of this outcome or one before."""
        self._following, self._rewards = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        self._is_over = np.zeros(shape, bool)
        for state, actions in told.items():
            for action, outcomes in actions.items():
                probabilities, following, rewards, is_over = zip(*outcomes, strict=True)
                row = (state, action, slice(len(outcomes)))
                self._passed[row] = np.cumsum(probabilities)
                self._following[row], self._rewards[row], self._is_over[row] = following, rewards, is_over
        self._limit = info.max_episode_steps or max_episode_steps or np.iinfo(np.int64).max
        self.num_envs = num_envs
        self._rng = np.random.default_rng(seed)
        self._states = np.zeros(num_envs, np.int64)
        self._steps = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, bool)

    def _started(self, count: int) -> Array:
        return np.asarray(np.searchsorted(self._starts, self._rng.random(count) * self._starts[-1], side="right"))

    def reset(self, seed: Seed | None = None) -> Array:
        """Start a new episode in every slot: [num_envs] int64."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._states = self._started(self.num_envs)
        self._steps[:], self._done[:] = 0, False
        return self._states.copy()

    def step(self, actions: Array, slots: Array) -> tuple[Array, Array, Array, Array]:
        """Step these slots: observations, rewards, terminated, truncated, each [k]."""
        cells = self._states[slots], actions
        outcomes = (self._passed[cells][:, :-1] <= self._rng.random(len(slots))[:, None]).sum(axis=1)
        chosen = (*cells, outcomes)
        begins = self._done[slots]
        states = self._following[chosen]
        states[begins] = self._started(int(begins.sum()))
        rewards = np.where(begins, np.float32(0), self._rewards[chosen])
        steps = np.where(begins, 0, self._steps[slots] + 1)
        terminated = self._is_over[chosen] & ~begins
        truncated = steps >= self._limit
        self._states[slots], self._steps[slots], self._done[slots] = states, steps, terminated | truncated
        return states, rewards, terminated, truncated

    def close(self) -> None:
        """Nothing is open."""


def tells_transitions(info: EnvironmentInfo) -> bool:
    """Whether all that an environment does is in its table: one of Gymnasium's three, without wrappers."""
    if parse(info.env_id).wrappers:
        return False
    env = bare = make_gymnasium(info.env_id)
    while isinstance(bare, gymnasium.Wrapper) and type(bare) in (OrderEnforcing, PassiveEnvChecker, TimeLimit):
        bare = bare.env
    env.close()
    return type(bare) in (CliffWalkingEnv, FrozenLakeEnv, TaxiEnv) and not getattr(bare, "fickle_passenger", False)
