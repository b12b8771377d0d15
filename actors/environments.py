"""What the rest of the house needs to know of an environment, and how values go in and out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from actors.distributions import distribution_for
from actors.environment_name import parse
from actors.errors import UserError
from actors.gymnasium_spaces import action_space_of, space_of
from actors.making import close, make_gymnasium
from actors.parts import num_continuous
from actors.spaces import Space
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import Tree

_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary"
MAX_EPISODE_STEPS = 27_000
"""Steps after which an episode is cut where nothing else ends it: Atari's half an hour, the longest limit in use."""


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
        return observation_of(self.env_id, self.observation_space)

    @property
    def action(self) -> Space:
        """What policies do."""
        return action_of(self.env_id, self.action_space)

    def policy_spec(
        self,
        scale_actions: bool = True,
        version: int = 0,
        trained: dict[str, Any] | None = None,
        distribution: str | None = None,
        target_return: float | None = None,
        sampled: bool = False,
        **network: Any,
    ) -> PolicySpec:
        """The spec of a policy for this environment; ``network`` are fields of PolicyNetwork.

        ``scale_actions`` holds where actions are continuous. ``distribution`` None: the first that there is for them.
        """
        shape = PolicyNetwork(**network)
        observation = self.observation
        if observation.dtype == "float64" and not shape.normalize_observations:
            observation = observation.form  # which single precision holds well enough
        scales = scale_actions and num_continuous(self.action) > 0
        family = distribution or distribution_for(self.action)
        return PolicySpec(
            self.env_id, observation, self.action, family, scales, shape, version, trained or {}, target_return, sampled
        )


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


def fitting(actions: Any, space: gymnasium.Space[Any]) -> Sequence[Any]:
    """Actions, [B, *act] or a tree of these, one by one as an environment takes them: in the types of its own space,
    and within its bounds as these have them."""
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict):
        columns = [fitting(actions[name], part) for name, part in space.items()]
        return [dict(zip(space, action, strict=True)) for action in zip(*columns, strict=True)]
    if isinstance(space, spaces.Tuple):
        return [*zip(*(fitting(actions[str(i)], part) for i, part in enumerate(space)), strict=True)]
    if isinstance(space, spaces.Box) and actions.dtype != space.dtype:
        actions = np.asarray(np.clip(actions.astype(space.dtype), space.low, space.high))
    elif isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        actions = actions.astype(space.dtype, copy=False)
    one_by_one: Sequence[Any] = actions
    return one_by_one


def describe(env_id: str) -> EnvironmentInfo:
    """Look an environment up, and check that its spaces are supported.

    Raises:
        UserError: no such environment, or spaces of a kind that is not supported.
    """
    env = make_gymnasium(env_id)
    spec, observation_space, action_space = env.spec, env.observation_space, env.action_space
    close(env, env_id)
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


def observation_of(env_id: str, space: gymnasium.Space[Any]) -> Space:
    """An observation space of Gymnasium's as ours.

    Raises:
        UserError: it is not supported.
    """
    try:
        found = space_of(space, _frames(env_id))
    except UserError as error:
        raise UserError(f"{env_id} has observations {space}: {error}") from error
    if found is None:
        raise UserError(f"{env_id} has observations {space}; supported are {_SUPPORTED}, Dict and Tuple")
    return found


def _frames(env_id: str) -> int:
    """Observations that its outermost wrapper puts together; 1: none does."""
    wrappers = parse(env_id).wrappers
    if wrappers and wrappers[-1].name == "FrameStackObservation":
        return int(wrappers[-1].arguments.get("stack_size", 1))
    return 1


def action_of(env_id: str, space: gymnasium.Space[Any]) -> Space:
    """An action space of Gymnasium's as ours.

    Raises:
        UserError: it is not supported.
    """
    try:
        found = action_space_of(space)
    except UserError as error:
        raise UserError(f"{env_id} has actions {space}: {error}") from error
    if found is None:
        raise UserError(
            f"{env_id} has actions {space}; supported are {_SUPPORTED}, Dict and Tuple, the Box one of floats"
        )
    return found
