"""Vector environments behind one small interface, from Gymnasium or from EnvPool."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np

from actors import envpool_families
from actors.episode import Array
from actors.errors import UserError, unknown
from actors.policy import PolicySpec

Backend = Literal["auto", "gymnasium", "envpool"]

_ENVPOOL_IDS = {"Beresheet-v2": "LunarLander-v3"}
"""Environments of ours that EnvPool knows by another name; time limits always come from Gymnasium's registry."""

gymnasium.register(
    id="Beresheet-v2",
    entry_point="gymnasium.envs.box2d.lunar_lander:LunarLander",
    max_episode_steps=300,
    reward_threshold=200,
)


@dataclasses.dataclass(frozen=True)
class EnvironmentInfo:
    """What the rest of the house needs to know of an environment."""

    env_id: str
    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete[Any] | gymnasium.spaces.Box
    reward_threshold: float | None
    """The mean return at which it counts as solved, if Gymnasium has one."""
    max_episode_steps: int | None

    def policy_spec(self, **network: Any) -> PolicySpec:
        """The spec of a policy for this environment; ``network`` are the fields it leaves open."""
        space = self.action_space
        shape = tuple(self.observation_space.shape)
        if isinstance(space, gymnasium.spaces.Discrete):
            return PolicySpec(self.env_id, shape, "categorical", int(space.n), **network)
        return PolicySpec(
            self.env_id,
            shape,
            "gaussian",
            int(np.prod(space.shape)),
            action_low=tuple(space.low.ravel().tolist()),
            action_high=tuple(space.high.ravel().tolist()),
            action_shape=tuple(space.shape),
            **network,
        )


def make_gymnasium(env_id: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make`` whose failures are one line each.

    Raises:
        UserError: no such id, or its package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # precision of Box bounds, deprecated versions
            return gymnasium.make(env_id, **kwargs)
    except gymnasium.error.UnregisteredEnv as error:
        if ":" in env_id:
            raise UserError(f"environment {env_id!r}: {error}") from error
        raise unknown("environment", env_id, gymnasium.registry) from error
    except (gymnasium.error.Error, ImportError, ValueError) as error:
        raise UserError(f"environment {env_id!r} cannot be made: {' '.join(str(error).split())}") from error


def describe(env_id: str) -> EnvironmentInfo:
    """Look an environment up, and check that its spaces are supported.

    Raises:
        UserError: no such environment, or spaces other than Box observations with Discrete or Box actions.
    """
    env = make_gymnasium(env_id)
    spec, observation_space, action_space = env.spec, env.observation_space, env.action_space
    env.close()
    if not isinstance(observation_space, gymnasium.spaces.Box):
        raise UserError(f"{env_id} has observations {observation_space}; supported are Box observations")
    if isinstance(action_space, gymnasium.spaces.Discrete):
        if int(action_space.start) != 0:
            raise UserError(f"{env_id} has actions {action_space}; supported are Discrete actions that start at 0")
    elif not (isinstance(action_space, gymnasium.spaces.Box) and action_space.dtype == np.float32):
        raise UserError(f"{env_id} has actions {action_space}; supported are Discrete and float32 Box actions")
    threshold = spec.reward_threshold if spec else None
    limit = spec.max_episode_steps if spec else None
    return EnvironmentInfo(env_id, observation_space, action_space, threshold, limit)


class Environments(Protocol):
    """A vector of environments, its slots stepped together or in part.

    The step after an episode's last ignores its action and returns the next episode's first observation with a reward
    of 0: Gymnasium's NEXT_STEP autoreset, which is also EnvPool's. Such a step is not experience.
    """

    backend: str
    num_envs: int

    def reset(self) -> Array:
        """Start a new episode in every slot: [num_envs, *obs] float32."""

    def step(self, actions: Array, slots: Array) -> tuple[Array, Array, Array, Array]:
        """Step the slots named, in increasing order.

        Args:
            actions: [k] or [k, *act].
            slots: [k] int, a subset of range(num_envs).

        Returns:
            observations [k, *obs] float32, rewards [k] float32, terminated [k] bool, truncated [k] bool.
        """

    def close(self) -> None:
        """Free what the environments hold."""


class GymnasiumEnvironments:
    """Gymnasium environments stepped one after another in this process."""

    backend = "gymnasium"

    def __init__(self, env_id: str, num_envs: int, seed: int) -> None:
        self.num_envs = num_envs
        self._envs = [make_gymnasium(env_id) for _ in range(num_envs)]
        self._seeds: list[int | None] = [seed * 100_003 + i for i in range(num_envs)]
        self._done = np.zeros(num_envs, bool)

    def reset(self) -> Array:
        """See Environments."""
        self._done[:] = False
        return np.stack([self._reset(slot) for slot in range(self.num_envs)])

    def _reset(self, slot: int) -> Array:
        observation, _ = self._envs[slot].reset(seed=self._seeds[slot])
        self._seeds[slot] = None  # seeded once; later episodes continue its random stream
        return np.asarray(observation, np.float32)

    def step(self, actions: Array, slots: Array) -> tuple[Array, Array, Array, Array]:
        """See Environments."""
        count = len(slots)
        observations: list[Array] = []
        rewards = np.zeros(count, np.float32)
        terminated = np.zeros(count, bool)
        truncated = np.zeros(count, bool)
        for i, slot in enumerate(slots.tolist()):
            if self._done[slot]:
                observations.append(self._reset(slot))
                self._done[slot] = False
                continue
            observation, reward, terminated[i], truncated[i], _ = self._envs[slot].step(actions[i])
            observations.append(np.asarray(observation, np.float32))
            rewards[i] = reward
            self._done[slot] = terminated[i] or truncated[i]
        return np.stack(observations), rewards, terminated, truncated

    def close(self) -> None:
        """See Environments."""
        for env in self._envs:
            env.close()


class EnvPoolEnvironments:
    """EnvPool's C++ environments, stepped by one thread while this one waits.

    Raises:
        UserError: EnvPool is not installed, or has no such environment with the same spaces.
    """

    backend = "envpool"

    def __init__(self, info: EnvironmentInfo, num_envs: int, seed: int) -> None:
        require_envpool(info)
        self.num_envs = num_envs
        self._all_slots = np.arange(num_envs, dtype=np.int32)
        self._action_type = np.int32 if isinstance(info.action_space, gymnasium.spaces.Discrete) else np.float32
        options = {} if info.max_episode_steps is None else {"max_episode_steps": info.max_episode_steps}
        self._pool = envpool_families.make_gymnasium(
            _ENVPOOL_IDS.get(info.env_id, info.env_id),
            num_envs=num_envs,
            num_threads=1,
            seed=seed * 100_003 % 2**31,
            **options,
        )

    def reset(self) -> Array:
        """See Environments."""
        observations, _ = self._pool.reset()
        return np.asarray(observations, np.float32)

    def step(self, actions: Array, slots: Array) -> tuple[Array, Array, Array, Array]:
        """See Environments."""
        self._pool.send(actions.astype(self._action_type), slots.astype(np.int32))
        observations, rewards, terminated, truncated, _ = self._pool.recv()  # one thread: in the order of the slots
        return (
            np.asarray(observations, np.float32),
            np.asarray(rewards, np.float32),
            terminated,
            truncated & ~terminated,
        )

    def close(self) -> None:
        """See Environments."""
        self._pool.close()


def envpool_lacks(info: EnvironmentInfo) -> str | None:
    """Why EnvPool cannot stand in for Gymnasium's environment; None where it can."""
    name = _ENVPOOL_IDS.get(info.env_id, info.env_id)
    if envpool_families.registry() is None:
        return "EnvPool is not installed"
    if not envpool_families.has(name):
        return "EnvPool does not have it"
    observations, actions = envpool_families.spaces(name)
    same = observations.shape == info.observation_space.shape and actions.shape == info.action_space.shape
    if isinstance(info.action_space, gymnasium.spaces.Discrete):
        same = same and getattr(actions, "n", None) == info.action_space.n
    return None if same else f"its spaces there are {observations} and {actions}"


def require_envpool(info: EnvironmentInfo) -> None:
    """Check that EnvPool can fly this environment.

    Raises:
        UserError: it cannot; says why.
    """
    reason = envpool_lacks(info)
    if reason:
        raise UserError(f"the envpool back end cannot fly {info.env_id}: {reason}; use gymnasium or auto")


def make_environments(env_id: str, num_envs: int, seed: int, backend: Backend = "auto") -> Environments:
    """A vector of environments: on EnvPool where it has the same one, on Gymnasium otherwise, or as told.

    Raises:
        UserError: no such environment or back end, or a back end that cannot fly it.
    """
    if backend not in ("auto", "gymnasium", "envpool"):
        raise unknown("back end", backend, ("auto", "gymnasium", "envpool"))
    info = describe(env_id)
    if backend == "envpool" or (backend == "auto" and envpool_lacks(info) is None):
        return EnvPoolEnvironments(info, num_envs, seed)
    return GymnasiumEnvironments(env_id, num_envs, seed)
