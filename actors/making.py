"""Environments made by their names; what they raise is one line."""

from __future__ import annotations

import contextlib
import importlib
import logging
import traceback
import warnings
from typing import Any

import gymnasium

from actors import doom
from actors.atari import is_atari
from actors.environment_name import NO_WRAPPERS, OURS, EnvironmentName, WrapperName, parse
from actors.errors import EnvironmentFault, UserError, unknown
from actors.imports import import_named

log = logging.getLogger("touchdown")

gymnasium.register(
    id="Beresheet-v2",
    entry_point="gymnasium.envs.box2d.lunar_lander:LunarLander",
    max_episode_steps=300,
    reward_threshold=200,
)
gymnasium.register(id="Catch-v0", entry_point="actors.catch:Catch", reward_threshold=0.95)


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
    _register(name)
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
    except (Exception, SystemExit) as error:
        log.debug("environment %r", env_id, exc_info=True)
        raise UserError(
            f"environment {env_id!r} cannot be made: __init__ raised {type(error).__name__}: {_one_line(error)}"
        ) from error
    with contextlib.ExitStack() as unless_done:
        unless_done.callback(env.close)
        if doom.is_doom(env):
            env = doom.Doom(env)
        is_limited = env.spec is not None and (env.spec.max_episode_steps is not None or is_atari(env.spec))
        if max_episode_steps is not None and not is_limited:
            env = gymnasium.wrappers.TimeLimit(env, max_episode_steps)
        for wrapper in name.wrappers:
            env = _wrapped(env, wrapper)
        unless_done.pop_all()
    return env


def make_several(env_id: str, count: int, max_episode_steps: int | None) -> list[gymnasium.Env[Any, Any]]:
    """So many of ``make_gymnasium``'s; if one cannot be made, those before it are closed."""
    with contextlib.ExitStack() as unless_done:
        envs = []
        for _ in range(count):
            envs.append(make_gymnasium(env_id, max_episode_steps))
            unless_done.callback(envs[-1].close)
        unless_done.pop_all()
    return envs


def _register(name: EnvironmentName) -> None:
    """Have a package that an extra of ours brings register its environments, if one of these is named.

    Raises:
        UserError: it is not installed.
    """
    if name.registrar is None:
        return
    module, extra = name.registrar
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"environment {name.id!r} needs {module.partition('.')[0]}: pip install 'touchdown[{extra}]'"
        ) from error


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


def close(env: gymnasium.Env[Any, Any], env_id: str) -> None:
    """Close an environment. If it raises, that is a line in the log: nothing depends on it any more."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        log.warning("%s", fault(env_id, "close", error))


def fault(env_id: str, method: str, error: BaseException) -> EnvironmentFault:
    """The error that a method of an environment raised, or what it gave back, as one line with the traceback apart."""
    details = "".join(traceback.format_exception(error))
    return EnvironmentFault(f"{env_id}: {method} raised {type(error).__name__}: {_one_line(error)}", details)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
