"""Vector environments behind one small interface, from Gymnasium or from EnvPool."""

from __future__ import annotations

import dataclasses
import functools
import logging
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np

from actors import envpool_families
from actors.distributions import distribution_for
from actors.environment_name import NO_WRAPPERS, OURS, WrapperName, parse
from actors.episode import Array
from actors.errors import EnvironmentFault, UserError, unknown
from actors.gymnasium_spaces import bounded, space_of
from actors.imports import import_named
from actors.seeds import Seed, derive
from actors.spaces import Box, Discrete, Space
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import Tree

log = logging.getLogger("touchdown")

Backend = Literal["auto", "gymnasium", "envpool"]

_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary"
_WHOLE = (gymnasium.spaces.Discrete, gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary)
MAX_EPISODE_STEPS = 27_000
"""Steps after which an episode is cut where nothing else ends it: Atari's half an hour, the longest limit in use."""

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
    """Its name, see ``environment_name``; with a version also where the name that was given has none: CartPole is
    CartPole-v1."""
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    reward_threshold: float | None
    """The mean return at which it counts as solved, if Gymnasium has one."""
    max_episode_steps: int | None

    @property
    def observation(self) -> Space:
        """What policies see; of float64 where float32 does not hold all its values."""
        return _observation(self.env_id, self.observation_space)

    @property
    def action(self) -> Space:
        """What policies do."""
        return _action(self.env_id, self.action_space)

    def policy_spec(
        self,
        scale_actions: bool = True,
        version: int = 0,
        trained: dict[str, Any] | None = None,
        distribution: str | None = None,
        **network: Any,
    ) -> PolicySpec:
        """The spec of a policy for this environment; ``network`` are fields of PolicyNetwork.

        ``scale_actions`` holds where actions are continuous. ``distribution`` None: the first that there is for them.
        """
        shape = PolicyNetwork(**network)
        observation = self.observation
        if observation.dtype == "float64" and not shape.normalize_observations:
            observation = observation.form  # which single precision holds well enough
        scales = scale_actions and isinstance(self.action, Box)
        family = distribution or distribution_for(self.action)
        return PolicySpec(self.env_id, observation, self.action, family, scales, shape, version, trained or {})


def make_gymnasium(env_id: str, max_episode_steps: int | None = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make`` whose failures are one line each.

    Args:
        env_id: a Gymnasium id, maybe with arguments and wrappers: see ``environment_name``. package.module:Id-v0
            imports the module first.
        max_episode_steps: where episodes are cut if the environment has no limit; None: they may last for ever.
        kwargs: of ``gymnasium.make``.

    Raises:
        UserError: no such id, its package is not installed, or its ``__init__`` or a wrapper's raises.
    """
    name = parse(env_id)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # precision of Box bounds, deprecated versions
            env = gymnasium.make(name.made, **name.arguments, **kwargs)
    except gymnasium.error.UnregisteredEnv as error:
        if name.module:
            raise UserError(f"environment {name.made!r}: {error}") from error
        hint = unknown("environment", name.id, gymnasium.registry)
        raise UserError(f"{hint}; one that a module of yours registers is package.module:{name.id}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"environment {env_id!r} cannot be made: {_one_line(error)}") from error
    except Exception as error:
        log.debug("environment %r", env_id, exc_info=True)
        raise UserError(
            f"environment {env_id!r} cannot be made: __init__ raised {type(error).__name__}: {_one_line(error)}"
        ) from error
    if max_episode_steps is not None and (env.spec is None or env.spec.max_episode_steps is None):
        env = gymnasium.wrappers.TimeLimit(env, max_episode_steps)
    for wrapper in name.wrappers:
        env = _wrapped(env, wrapper)
    return env


def _wrapped(env: gymnasium.Env[Any, Any], wrapper: WrapperName) -> gymnasium.Env[Any, Any]:
    """An environment in a wrapper.

    Raises:
        UserError: there is no such wrapper, or it cannot be put around this environment.
    """
    known = sorted({*OURS, *gymnasium.wrappers.__all__} - {*NO_WRAPPERS})
    if ":" not in wrapper.name and wrapper.name not in known:
        raise UserError(f"{unknown('wrapper', wrapper.name, known)}; your own is package.module:Class")
    kind = import_named("wrapper", wrapper.module, wrapper.attribute)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            around = kind(env, **wrapper.arguments)
            if isinstance(around, gymnasium.Env):
                _ = around.spec, around.observation_space, around.action_space  # what each must answer
    except UserError as error:
        raise UserError(f"wrapper {wrapper}: {error}") from error
    except Exception as error:
        log.debug("wrapper %s", wrapper, exc_info=True)
        raise UserError(f"wrapper {wrapper} raised {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(around, gymnasium.Env):
        raise UserError(f"wrapper {wrapper.name} makes no environment, but {type(around).__name__}")
    return around


def fault(env_id: str, method: str, error: Exception) -> EnvironmentFault:
    """The error that a method of an environment raised, or what it gave back, as one line with the traceback apart."""
    details = "".join(traceback.format_exception(error))
    return EnvironmentFault(f"{env_id}: {method} raised {type(error).__name__}: {_one_line(error)}", details)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def stacked(space: Space, observations: Sequence[Any], env_id: str, method: str) -> Tree:
    """What a method of environments gave, as a column of their observation space.

    Raises:
        UserError: one is no value of that space; names the environment, the method and the part that is wrong.
    """
    try:
        column: Tree = space.stack(observations)
    except UserError as error:
        raise UserError(f"{env_id}: {method} gives {error}") from error
    return column


def fitting(actions: Array, space: gymnasium.Space[Any]) -> Array:
    """Actions [B, *act] in the type of an environment's own space, and within its bounds as that type has them."""
    if isinstance(space, gymnasium.spaces.Box) and actions.dtype != space.dtype:
        return np.asarray(np.clip(actions.astype(space.dtype), space.low, space.high))
    if isinstance(space, gymnasium.spaces.MultiDiscrete | gymnasium.spaces.MultiBinary):
        return actions.astype(space.dtype, copy=False)
    return actions


def describe(env_id: str) -> EnvironmentInfo:
    """Look an environment up, and check that its spaces are supported.

    Raises:
        UserError: no such environment, or spaces of a kind that is not supported.
    """
    env = make_gymnasium(env_id)
    spec, observation_space, action_space = env.spec, env.observation_space, env.action_space
    env.close()
    threshold = spec.reward_threshold if spec else None
    limit = spec.max_episode_steps if spec else None
    name = parse(env_id)
    env_id = str(dataclasses.replace(name, id=spec.id) if spec else name)
    info = EnvironmentInfo(env_id, observation_space, action_space, threshold, limit)
    _ = info.observation, info.action
    try:
        info.policy_spec()  # a mask must fit the actions
    except UserError as error:
        raise UserError(f"{env_id}: {error}") from error
    return info


def _observation(env_id: str, space: gymnasium.Space[Any]) -> Space:
    try:
        found = space_of(space)
    except UserError as error:
        raise UserError(f"{env_id} has observations {space}: {error}") from error
    if found is None:
        raise UserError(f"{env_id} has observations {space}; supported are {_SUPPORTED}, Dict and Tuple")
    if (shape := _picture(space)) is not None:
        raise UserError(
            f"{env_id} has pictures of {' × '.join(map(str, shape))} as observations, and no network here takes "
            "pictures yet; make a short Box of them with a wrapper of yours, registered under a name of its own"
        )
    return found


def _picture(space: gymnasium.Space[Any]) -> tuple[int, ...] | None:
    """The shape of a picture in it; None: it has none."""
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        parts = space.values() if isinstance(space, gymnasium.spaces.Dict) else space
        return next(filter(None, map(_picture, parts)), None)
    return space.shape if space.dtype == np.uint8 and len(space.shape or ()) in (2, 3) else None


def _action(env_id: str, space: gymnasium.Space[Any]) -> Space:
    if isinstance(space, gymnasium.spaces.Box):
        if np.issubdtype(np.dtype(space.dtype), np.floating):
            return bounded(space)
    elif isinstance(space, _WHOLE) and (found := space_of(space)):
        return found
    raise UserError(f"{env_id} has actions {space}; supported are {_SUPPORTED}, the Box one of floats")


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

    def step(self, actions: Array, slots: Array) -> tuple[Tree, Array, Array, Array]:
        """Step the slots named, in increasing order.

        Args:
            actions: [k] or [k, *act].
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
        self._envs = [make_gymnasium(env_id, max_episode_steps) for _ in range(num_envs)]
        self._space = _observation(env_id, self._envs[0].observation_space)
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
        except Exception as error:
            raise fault(self._env_id, "reset", error) from error
        self._seeds[slot] = None  # seeded once; later episodes continue its random stream
        return observation

    def step(self, actions: Array, slots: Array) -> tuple[Tree, Array, Array, Array]:
        """Step these slots, one after another: observations, rewards, terminated, truncated, each [k, …]."""
        count = len(slots)
        observations: list[Any] = []
        rewards = np.zeros(count, np.float32)
        terminated = np.zeros(count, bool)
        truncated = np.zeros(count, bool)
        actions = fitting(actions, self._envs[0].action_space)
        for i, slot in enumerate(slots.tolist()):
            if self._done[slot]:
                observations.append(self._reset(slot))
                self._done[slot] = False
                continue
            try:
                observation, reward, terminated[i], truncated[i], _ = self._envs[slot].step(actions[i])
                rewards[i] = reward
            except Exception as error:
                raise fault(self._env_id, "step", error) from error
            observations.append(observation)
            self._done[slot] = terminated[i] or truncated[i]
        return stacked(self._space, observations, self._env_id, "step"), rewards, terminated, truncated

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()


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
        self._dtype = info.observation.dtype
        self._action_type = np.int32 if isinstance(info.action, Discrete) else np.float32
        limit = info.max_episode_steps or max_episode_steps
        name = parse(info.env_id)
        options = {**name.arguments, "max_episode_steps": limit}
        if limit is None:
            del options["max_episode_steps"]
        self._make_pool = functools.partial(
            envpool_families.make_gymnasium,
            _ENVPOOL_IDS.get(name.made, name.made),
            num_envs=num_envs,
            num_threads=1,
            **options,
        )
        self._pool = self._make_pool(seed=derive(seed, num_envs))
        names = [name.partition(":")[0] for name in self._pool._state_keys]
        self._columns = [names.index(name) for name in ("obs", "reward", "done", "trunc")]

    def reset(self, seed: Seed | None = None) -> Array:
        """Start a new episode in every slot: [num_envs, *obs]; a seed makes the pool anew."""
        if seed is not None:  # its seeds are fixed when a pool is made; that takes a millisecond
            self._pool.close()
            self._pool = self._make_pool(seed=derive(seed, self.num_envs))
        observations, _ = self._pool.reset()
        return np.asarray(observations, self._dtype)

    def step(self, actions: Array, slots: Array) -> tuple[Tree, Array, Array, Array]:
        """Step these slots, all in one call of C++: observations, rewards, terminated, truncated, each [k, …]."""
        slots = slots.astype(np.int32)
        # What send and recv wrap: their dictionaries and infos, which nobody reads, cost a tenth of a step of 16 slots.
        self._pool._send([slots, slots, np.ascontiguousarray(actions, self._action_type)])
        state = self._pool._recv()  # one thread: in the order of the slots
        observations, rewards, done, truncated = (state[i] for i in self._columns)
        return np.asarray(observations, self._dtype), np.asarray(rewards, np.float32), done & ~truncated, truncated

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


def envpool_lacks(info: EnvironmentInfo) -> str | None:
    """Why EnvPool cannot stand in for Gymnasium's environment; None where it can."""
    asked = parse(info.env_id)
    name = _ENVPOOL_IDS.get(asked.made, asked.made)
    if envpool_families.registry() is None:
        return "EnvPool is not installed"
    if not envpool_families.has(name):
        return "EnvPool does not have it"
    if asked.wrappers:
        return f"wrapper {asked.wrappers[0].name} is Gymnasium's"
    if lacking := asked.arguments.keys() - {"max_episode_steps"} - envpool_families.arguments(name):
        return f"EnvPool has no argument {min(lacking)} of it"
    if not (isinstance(info.observation, Box) and isinstance(info.action, Box | Discrete)):
        return "its Box observations and Box or Discrete actions are all that is flown there"
    own = {key: value for key, value in asked.arguments.items() if key != "max_episode_steps"}
    observations, actions = envpool_families.spaces(name, **own)
    same = observations.shape == info.observation.shape and actions.shape == info.action.shape
    if isinstance(info.action_space, gymnasium.spaces.Discrete):
        same = same and getattr(actions, "n", None) == info.action_space.n and info.action_space.start == 0
    return None if same else f"its spaces there are {observations} and {actions}"


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

    ``max_episode_steps`` is where episodes are cut if the environment has no limit; None: they may last for ever.

    Raises:
        UserError: no such environment or back end, or a back end that cannot fly it.
    """
    if backend not in ("auto", "gymnasium", "envpool"):
        raise unknown("back end", backend, ("auto", "gymnasium", "envpool"))
    info = describe(env_id)
    if backend == "envpool" or (backend == "auto" and envpool_lacks(info) is None):
        return EnvPoolEnvironments(info, num_envs, seed, max_episode_steps)
    return GymnasiumEnvironments(env_id, num_envs, seed, max_episode_steps)
