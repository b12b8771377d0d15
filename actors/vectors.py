"""Vectors of environments behind one small interface, from Gymnasium or from EnvPool."""

from __future__ import annotations

import functools
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np

from actors import envpool_families
from actors.atari import in_envpool, is_atari
from actors.environment_name import EnvironmentName, parse
from actors.environments import EnvironmentInfo, describe, fitting, observation_of, stacked
from actors.episode import Array
from actors.errors import UserError, unknown
from actors.making import close, fault, make_several
from actors.pictures import Picture
from actors.seeds import Seed, derive
from actors.spaces import Box, Discrete
from actors.transitions import TransitionTable, tells_transitions
from actors.trees import Tree
from actors.wrappers import left

Backend = Literal["auto", "gymnasium", "envpool"]

_ENVPOOL_IDS = {"Beresheet-v2": "LunarLander-v3"}
"""Environments of ours that EnvPool knows by another name; time limits always come from Gymnasium's registry."""


class Environments(Protocol):
    """A vector of environments, its slots stepped together or in part.

    The step after an episode's last ignores its action and returns the next episode's first observation with a reward
    of 0: Gymnasium's NEXT_STEP autoreset, which is also EnvPool's. Such a step is not experience.
    """

    backend: str
    num_envs: int

    def reset(self, seed: Seed | None = None) -> Tree:
        """Start a new episode in every slot: [num_envs, *obs] of ``EnvironmentInfo.observation``'s dtype.

        ``seed``: begin the random streams of all slots anew, from this; None: they go on.
        """

    def step(self, actions: Any, slots: Array) -> tuple[Tree, Array, Array, Array]:
        """Step the slots named, in increasing order.

        Args:
            actions: [k] or [k, *act], or of several parts a tree of these.
            slots: [k] int, a subset of range(num_envs).

        Returns:
            observations [k, *obs] as of ``reset``, rewards [k] float32, terminated [k] bool, truncated [k] bool.
        """

    def close(self) -> None:
        """Free what the environments hold."""


class GymnasiumEnvironments:
    """Gymnasium environments stepped one after another in this process."""

    backend = "gymnasium"

    def __init__(self, env_id: str, num_envs: int, seed: Seed, max_episode_steps: int | None = None) -> None:
        self.num_envs = num_envs
        self._env_id = env_id
        self._envs = make_several(env_id, num_envs, max_episode_steps)
        self._space = observation_of(env_id, self._envs[0].observation_space)
        self._seeds: list[int | None] = [*derive(seed, num_envs)]
        self._done = np.zeros(num_envs, bool)

    def reset(self, seed: Seed | None = None) -> Tree:
        """Start a new episode in every slot: [num_envs, *obs]; a seed begins all random streams anew."""
        if seed is not None:
            self._seeds = [*derive(seed, self.num_envs)]
        self._done[:] = False
        return stacked(self._space, [self._reset(slot) for slot in range(self.num_envs)], self._env_id, "reset")

    def _reset(self, slot: int) -> Any:
        try:
            observation, _ = self._envs[slot].reset(seed=self._seeds[slot])
        except (Exception, SystemExit) as error:
            raise fault(self._env_id, "reset", error) from error
        self._seeds[slot] = None  # seeded once; later episodes continue its random stream
        return observation

    def step(self, actions: Any, slots: Array) -> tuple[Tree, Array, Array, Array]:
        """Step these slots, one after another: observations, rewards, terminated, truncated, each [k, …]."""
        count = len(slots)
        observations: list[Any] = []
        rewards = np.zeros(count, np.float32)
        terminated = np.zeros(count, bool)
        truncated = np.zeros(count, bool)
        flown = fitting(actions, self._envs[0].action_space)
        for i, slot in enumerate(slots.tolist()):
            if self._done[slot]:
                observations.append(self._reset(slot))
                self._done[slot] = False
                continue
            try:
                observation, reward, terminated[i], truncated[i], _ = self._envs[slot].step(flown[i])
                rewards[i] = reward
            except (Exception, SystemExit) as error:
                raise fault(self._env_id, "step", error) from error
            observations.append(observation)
            self._done[slot] = terminated[i] or truncated[i]
        return stacked(self._space, observations, self._env_id, "step"), rewards, terminated, truncated

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            close(env, self._env_id)


class EnvPoolEnvironments:
    """EnvPool's C++ environments, stepped by one thread while this one waits.

    Raises:
        UserError: EnvPool is not installed, or has no such environment with the same spaces.
    """

    backend = "envpool"

    def __init__(self, info: EnvironmentInfo, num_envs: int, seed: Seed, max_episode_steps: int | None = None) -> None:
        require_envpool(info)
        self.num_envs = num_envs
        self._all_slots = np.arange(num_envs, dtype=np.int32)
        self._dtype, self._shape = info.observation.dtype, info.observation_space.shape or ()
        self._action_type = np.int32 if isinstance(info.action, Discrete) else np.float32
        found = _in_envpool(info)
        assert not isinstance(found, str)
        name, options = found
        limit = info.max_episode_steps or max_episode_steps
        if limit is not None:
            options.setdefault("max_episode_steps", limit)
        self._make_pool = functools.partial(
            envpool_families.make_gymnasium, name, num_envs=num_envs, num_threads=1, **options
        )
        self._pool = self._make_pool(seed=derive(seed, num_envs))
        names = [name.partition(":")[0] for name in self._pool._state_keys]
        self._columns = [names.index(name) for name in ("obs", "reward", "done", "trunc")]
        self._left = _left(parse(info.env_id), self._pool.observation_space.shape)

    def reset(self, seed: Seed | None = None) -> Array:
        """Start a new episode in every slot: [num_envs, *obs]; a seed makes the pool anew."""
        if seed is not None:  # its seeds are fixed when a pool is made; that takes a millisecond
            self._pool.close()
            self._pool = self._make_pool(seed=derive(seed, self.num_envs))
        observations, _ = self._pool.reset()
        return self._seen(observations)

    def step(self, actions: Array, slots: Array) -> tuple[Tree, Array, Array, Array]:
        """Step these slots, all in one call of C++: observations, rewards, terminated, truncated, each [k, …]."""
        slots = slots.astype(np.int32)
        # What send and recv wrap: their dictionaries and infos, which nobody reads, cost a tenth of a step of 16 slots.
        self._pool._send([slots, slots, np.ascontiguousarray(actions, self._action_type)])
        state = self._pool._recv()  # one thread: in the order of the slots
        observations, rewards, done, truncated = (state[i] for i in self._columns)
        return self._seen(observations), np.asarray(rewards, np.float32), done & ~truncated, truncated

    def _seen(self, observations: Any) -> Array:
        """As Gymnasium gives them, which does not count a single frame; of numbers what wrapper Hide leaves."""
        if self._left is not None:
            observations = observations[:, self._left]
        return np.asarray(observations, self._dtype).reshape(len(observations), *self._shape)

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


def _in_envpool(info: EnvironmentInfo) -> tuple[str, dict[str, Any]] | str:
    """EnvPool's name of an environment and the options that make it the same as Gymnasium's; or why there are none."""
    asked = parse(info.env_id)
    if envpool_families.registry() is None:
        return "EnvPool is not installed"
    if is_atari(gymnasium.registry.get(asked.id)):
        found = in_envpool(asked)
        return found if isinstance(found, str) or envpool_families.has(found[0]) else "EnvPool does not have it"
    name = _ENVPOOL_IDS.get(asked.made, asked.made)
    if not envpool_families.has(name):
        return "EnvPool does not have it"
    if others := [wrapper.name for wrapper in asked.wrappers if wrapper.name != "Hide"]:
        return f"wrapper {others[0]} is Gymnasium's"
    options = {key: value for key, value in asked.arguments.items() if key != "max_episode_steps"}
    if lacking := options.keys() - envpool_families.arguments(name):
        return f"EnvPool has no argument {min(lacking)} of it"
    return name, options


def envpool_lacks(info: EnvironmentInfo) -> str | None:
    """Why EnvPool cannot stand in for Gymnasium's environment; None where it can."""
    found = _in_envpool(info)
    if isinstance(found, str):
        return found
    if not (isinstance(info.observation, Box | Picture) and isinstance(info.action, Box | Discrete)):
        return "its Box observations and Box or Discrete actions are all that is flown there"
    observations, actions = envpool_families.spaces(found[0], **found[1])
    hidden, seen = _left(parse(info.env_id), observations.shape), info.observation.shape
    shape = observations.shape if hidden is None else hidden.shape
    same = shape in (seen, (1, *seen)) and actions.shape == info.action.shape
    if isinstance(info.action_space, gymnasium.spaces.Discrete):
        same = same and getattr(actions, "n", None) == info.action_space.n and info.action_space.start == 0
    return None if same else f"its spaces there are {observations} and {actions}"


def _left(name: EnvironmentName, shape: tuple[int, ...]) -> Array | None:
    """Which numbers of an observation its wrappers Hide leave; None: there is none of these."""
    hiding = [wrapper for wrapper in name.wrappers if wrapper.name == "Hide"]
    columns = np.arange(shape[0]) if hiding else None
    for wrapper in hiding:
        assert columns is not None
        columns = columns[left(len(columns), wrapper.arguments["components"])]
    return columns


def require_envpool(info: EnvironmentInfo) -> None:
    """Check that EnvPool can fly this environment.

    Raises:
        UserError: it cannot; says why.
    """
    reason = envpool_lacks(info)
    if reason:
        raise UserError(f"the envpool back end cannot fly {info.env_id}: {reason}; use gymnasium or auto")


def make_environments(
    env_id: str, num_envs: int, seed: Seed, backend: Backend = "auto", max_episode_steps: int | None = None
) -> Environments:
    """A vector of environments: on EnvPool where it has the same one, on Gymnasium otherwise, or as told.

    Gymnasium's small ones that tell their transitions are flown by these.

    ``max_episode_steps`` is where episodes are cut if the environment has no limit; None: they may last for ever.

    Raises:
        UserError: no such environment or back end, or a back end that cannot fly it.
    """
    if backend not in ("auto", "gymnasium", "envpool"):
        raise unknown("back end", backend, ("auto", "gymnasium", "envpool"))
    info = describe(env_id)
    if backend == "envpool" or (backend == "auto" and envpool_lacks(info) is None):
        return EnvPoolEnvironments(info, num_envs, seed, max_episode_steps)
    if backend == "auto" and tells_transitions(info):
        return TransitionTable(info, num_envs, seed, max_episode_steps)
    return GymnasiumEnvironments(env_id, num_envs, seed, max_episode_steps)
