"""EnvPool without the simulators that nobody asked for.

``import envpool`` loads seventeen families of environments into every process: 90 MB and a second for each actor. Its
parts can be imported one at a time once the package itself is in ``sys.modules``, which is what happens here: the
families of the classic Gymnasium ids first, toy texts and Atari if an id is in neither, and then all others.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
import warnings
from typing import Any

_POOLS = {
    *("num_envs", "batch_size", "num_threads", "max_num_players", "thread_affinity_offset", "base_path", "seed"),
    *("env_seed", "gym_reset_return_info", "max_episode_steps", "reward_threshold"),
}
"""Options that every pool has."""
_SMALL_FAMILIES = ("box2d", "classic_control")


@functools.cache
def registry() -> Any:
    """EnvPool's registration module (list_all_envs, make_spec, make_gymnasium); None where EnvPool is not installed."""
    found = importlib.util.find_spec("envpool")
    if found is None:
        return None
    if "envpool" in sys.modules:
        return importlib.import_module("envpool.registration")
    package = types.ModuleType("envpool")
    package.__path__ = list(found.submodule_search_locations or ())
    package.__spec__ = found
    sys.modules["envpool"] = package
    registration = importlib.import_module("envpool.registration")
    for name in ("list_all_envs", "make", "make_dm", "make_gym", "make_gymnasium", "make_spec", "register"):
        setattr(package, name, getattr(registration, name))
    for family in _SMALL_FAMILIES:
        importlib.import_module(f"envpool.{family}.registration")
    return registration


def has(name: str) -> bool:
    """Whether EnvPool is installed and has an environment of that name."""
    registration = registry()
    if registration is None:
        return False
    for module in ("envpool.toy_text.registration", "envpool.atari.registration", "envpool.entry"):
        if name not in registration.list_all_envs():
            importlib.import_module(module)
    return name in registration.list_all_envs()


def arguments(name: str) -> set[str]:
    """The names of what an environment itself can be given, beside what is the pool's."""
    return set(_spec(name).config._fields) - _POOLS


def spaces(name: str, **options: Any) -> tuple[Any, Any]:
    """Observation and action space of one environment of a pool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Box bounds that lose precision
        spec = _spec(name, **options)
        return spec.observation_space, spec.action_space


def _spec(name: str, **options: Any) -> Any:
    return registry().make_spec(name, **options)


def make_gymnasium(name: str, **options: Any) -> Any:
    """A pool of environments with Gymnasium's interface."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pool = registry().make_gymnasium(name, **options)
        _ = pool.observation_space, pool.action_space  # made, with their warnings, when first asked for
        return pool
