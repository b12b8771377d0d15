"""Algorithms by name: ours, and one's own as package.module:Class."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from actors.errors import UserError
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.naming import find
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO

ALGORITHMS: dict[str, type[Algorithm]] = {"policy_gradient": PolicyGradient, "ppo": PPO}


def find_algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name, or one's own at ``package.module:Class``.

    Raises:
        UserError: there is none, or it is not a frozen dataclass that extends an algorithm.
    """
    found: Any = find("algorithm", name, ALGORITHMS)
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise UserError(f"algorithm {name!r} must be a class that extends Algorithm, PolicyGradient or PPO")
    options = {option.name for option in dataclasses.fields(found)}
    forgotten = [option for option in inspect.get_annotations(found) if option not in options]
    if forgotten:
        raise UserError(f"algorithm {name!r} has no option {forgotten[0]}: decorate it @dataclass(frozen=True)")
    if missing := getattr(found, "__abstractmethods__", None):
        raise UserError(f"algorithm {name!r} lacks the method {min(missing)}")
    for option in dataclasses.fields(found):
        if option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING:
            raise UserError(f"algorithm {name!r}: its option {option.name} needs a default")
    return found


def name_of(algorithm: Algorithm) -> str:
    """The name by which ``find_algorithm`` finds its class."""
    kind = type(algorithm)
    return next((name for name, known in ALGORITHMS.items() if known is kind), f"{kind.__module__}:{kind.__qualname__}")


def changed_to(kind: type[Algorithm], algorithm: Algorithm) -> Algorithm:
    """Another algorithm; the options that both have from one class keep their values, the others are its defaults."""
    before, after = _declared(type(algorithm)), _declared(kind)
    kept = {name: getattr(algorithm, name) for name in after if before.get(name) is after[name]}
    return kind(**kept)


def _declared(kind: type[Algorithm]) -> dict[str, type]:
    """The class that each option is from."""
    return {
        option.name: next(base for base in kind.__mro__ if option.name in inspect.get_annotations(base))
        for option in dataclasses.fields(kind)
    }
