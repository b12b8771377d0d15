"""``python -m actors.check_env package.module:Id-v0``: whether an environment keeps to Gymnasium's interface, and ours.

It runs Gymnasium's own ``check_env``, then flies a few episodes at random. What is wrong is said with its traceback.
"""

from __future__ import annotations

import argparse
import logging
import numbers
import shlex
import sys
import traceback
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from actors.environments import describe, stacked
from actors.errors import EnvironmentFault, UserError
from actors.gymnasium_spaces import action_space_of, space_of
from actors.making import close, fault, make_gymnasium
from actors.masks import MASK
from actors.parts import Parts, num_choices
from actors.spaces import Space
from actors.trees import leaves

log = logging.getLogger("touchdown")


def try_out(env_id: str, steps: int = 1) -> list[int]:
    """Reset an environment and take a few random steps, to find what is wrong with it before anything starts.

    Args:
        env_id: a Gymnasium id.
        steps: so many, episode after episode.

    Returns:
        Lengths of the episodes that ended.

    Raises:
        UserError: it raises, or gives back something else than Gymnasium's interface says; names it and the method.
    """
    env = make_gymnasium(env_id, disable_env_checker=True)
    if isinstance(env, gymnasium.wrappers.TimeLimit):
        env = env.env  # what it makes of a step that is not as it should be is no help
    env.action_space.seed(0)
    method, lengths, length = "reset", [], 0
    try:
        observation = _check_reset(env_id, env, env.reset(seed=0))
        for _ in range(steps):
            method, length = "step", length + 1
            observation, is_over = _check_step(env_id, env, env.step(_random_action(env.action_space, observation)))
            if is_over:
                lengths.append(length)
                method, length = "reset", 0
                observation = _check_reset(env_id, env, env.reset())
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        found = fault(env_id, method, error)
        log.debug("%s", found.details)
        raise UserError(f"{found}; python -m actors.check_env {shlex.quote(env_id)} shows where") from error
    finally:
        close(env, env_id)
    return lengths


def _random_action(space: gymnasium.Space[Any], observation: Any) -> Any:
    """One that the observation's mask allows, if it has one."""
    mask, ours = observation.get(MASK) if isinstance(observation, dict) else None, action_space_of(space)
    if mask is None or ours is None or not num_choices(ours):
        return space.sample()
    return _allowed_action(space, ours, (np.ravel(mask) > 0).astype(np.int8))


def _allowed_action(space: Any, ours: Space, allows: Any) -> Any:
    """A random one of what a mask allows, int8: a number for each action, choice or switch."""
    spaces = gymnasium.spaces
    if isinstance(ours, Parts):
        parts = [*ours.spaces.values()]
        own = np.split(allows, np.cumsum([num_choices(part) for part in parts])[:-1])
        theirs = [*space] if ours.is_tuple else [*space.values()]
        chosen = [_allowed_action(*each) for each in zip(theirs, parts, own, strict=True)]
        return (*chosen,) if ours.is_tuple else dict(zip(space, chosen, strict=True))
    if isinstance(space, spaces.Box):
        return space.sample()
    if isinstance(space, spaces.Discrete):
        return space.sample(allows)
    if isinstance(space, spaces.MultiBinary):
        return space.sample(2 * allows.reshape(space.shape))  # 2: either
    choices = np.split(allows, np.cumsum(space.nvec.ravel())[:-1])
    picked = [np.flatnonzero(choice)[int(space.np_random.integers(choice.sum()))] for choice in choices]
    return (np.reshape(picked, space.shape) + space.start).astype(space.dtype)


def _check_reset(env_id: str, env: gymnasium.Env[Any, Any], result: Any) -> Any:
    """Answers the observation."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise UserError(f"{env_id}: reset must return (observation, info), not {_in_words(result)}")
    _check_observation(env_id, env, "reset", result[0])
    return result[0]


def _check_step(env_id: str, env: gymnasium.Env[Any, Any], result: Any) -> tuple[Any, bool]:
    """Answers the observation, and whether the episode is over."""
    if not (isinstance(result, tuple) and len(result) == 5):
        raise UserError(
            f"{env_id}: step must return (observation, reward, terminated, truncated, info), not {_in_words(result)}"
        )
    observation, reward, terminated, truncated, _ = result
    _check_observation(env_id, env, "step", observation)
    if not (isinstance(reward, numbers.Real) or (np.ndim(reward) == 0 and np.asarray(reward).dtype.kind in "fiub")):
        raise UserError(f"{env_id}: step must return a number as the reward, not {_in_words(reward)}")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise UserError(f"{env_id}: step must return True or False for {name}, not {_in_words(flag)}")
    return observation, bool(terminated or truncated)


def _check_observation(env_id: str, env: gymnasium.Env[Any, Any], method: str, observation: Any) -> None:
    space = env.observation_space
    ours = space_of(space)
    if ours is None:  # describe has said so
        return
    column = stacked(ours, [observation], env_id, method)
    if not all(np.isfinite(leaf).all() for _, leaf in leaves(column)):
        raise UserError(f"{env_id}: {method} gives an observation that holds a NaN or an infinity")
    if method == "reset" and not isinstance(ours, Parts) and np.asarray(observation).dtype != space.dtype:
        found = np.asarray(observation).dtype
        log.warning("%s: %s gives %s; its observation_space is of %s", env_id, method, found, space.dtype)


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{value!r}"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m actors.check_env", description=__doc__)
    parser.add_argument("env", help="a Gymnasium id; package.module:Id-v0 imports the module first")
    parser.add_argument("--steps", type=int, default=1000, help="steps to fly at random")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        describe(options.env)
        lengths = try_out(options.env, options.steps)
        env = make_gymnasium(options.env, disable_env_checker=True)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            check_env(env.unwrapped, skip_render_check=True)
    except Exception as error:
        is_unknown = isinstance(error.__cause__, gymnasium.error.Error | ModuleNotFoundError)
        if not is_unknown and (error.__cause__ or not isinstance(error, UserError | EnvironmentFault)):
            traceback.print_exception(error.__cause__ or error)
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2 if is_unknown else 1)
    print(
        f"{options.env} keeps to Gymnasium's interface; {len(lengths)} episodes ended in {options.steps} random steps"
    )


if __name__ == "__main__":
    main()
