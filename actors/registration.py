"""Environments that a script or a notebook registers, made known to the processes that fly them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # Gymnasium brings it
import gymnasium

from actors.environment_name import parse
from actors.errors import UserError


def registration(env_id: str) -> bytes | None:
    """What ``register`` needs in another process of ours; None: that process imports a module by the id, or knows it.

    Raises:
        UserError: the environment cannot be sent there; says how else to name it.
    """
    spec: Any = copy.copy(gymnasium.registry.get(parse(env_id).made))
    if spec is None:
        return None
    try:
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
            spec.entry_point = gymnasium.envs.registration.load_env_creator(
                spec.entry_point
            )  # elsewhere __main__ is another script
        data: bytes = cloudpickle.dumps(spec)
    except Exception as error:  # whatever the user's objects raise as they are pickled
        raise _unknown_elsewhere(env_id, error) from error
    return data


def register(env_id: str, data: bytes | None) -> None:
    """Make an environment known to this process; ``data`` is what ``registration`` gave in one of ours.

    Raises:
        UserError: the environment needs a module that this process does not find.
    """
    if data is None:
        return
    try:
        gymnasium.registry[parse(env_id).made] = pickle.loads(data)
    except Exception as error:
        raise _unknown_elsewhere(env_id, error) from error


def _unknown_elsewhere(env_id: str, error: Exception) -> UserError:
    said = " ".join(str(error).split())
    return UserError(
        f"environment {env_id!r} cannot be sent to the processes that fly it ({said}): put it in a module that they "
        f"can import, and name it package.module:{parse(env_id).id}"
    )
