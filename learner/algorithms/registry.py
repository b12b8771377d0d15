"""Algorithms by name: ours, and one's own as package.module:Class."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from actors.errors import UserError
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.cloning import BehaviourCloning, DecisionTransformer
from learner.algorithms.conservative import CQL
from learner.algorithms.dqn import DQN
from learner.algorithms.naming import find
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.pqn import PQN
from learner.algorithms.sac import SAC
from learner.algorithms.tabular import Tabular

ALGORITHMS: dict[str, type[Algorithm]] = {
    "policy_gradient": PolicyGradient,
    "ppo": PPO,
    "tabular": Tabular,
    "dqn": DQN,
    "pqn": PQN,
    "sac": SAC,
    "bc": BehaviourCloning,
    "dt": DecisionTransformer,
    "cql": CQL,
}


def find_algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name, or one's own at ``package.module:Class``.

    Raises:
        UserError: there is none, or it is not a frozen dataclass that extends an algorithm, with options of its own.
    """
    found: Any = find("algorithm", name, ALGORITHMS)
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise UserError(f"algorithm {name!r} must be a class that extends Algorithm, PolicyGradient or PPO")
    if found not in ALGORITHMS.values():
        require_sound(found, name)
    return found


def require_sound(kind: type[Algorithm], name: str) -> None:
    """Make sure that an algorithm of the user's is one that can be configured.

    Raises:
        UserError: it is not; one line that says what to mend.
    """
    if missing := getattr(kind, "__abstractmethods__", None):
        raise UserError(f"algorithm {name!r} lacks the method {min(missing)}")
    options = {option.name: option for option in dataclasses.fields(kind)}
    for option, hint in inspect.get_annotations(kind).items():
        is_one = not str(hint).startswith(("ClassVar", "typing.ClassVar", "InitVar", "dataclasses.InitVar"))
        if is_one and option not in options:
            raise UserError(f"algorithm {name!r} has no option {option}: decorate it @dataclass(frozen=True)")
    ours = [base for base in kind.__mro__ if base.__module__.startswith("learner.algorithms.")]
    methods = {method for base in ours for method in vars(base) if not method.startswith("__")}
    methods -= {option.name for option in dataclasses.fields(ours[0])}
    for option, field in options.items():
        if option in methods or option == "name":
            raise UserError(f"algorithm {name!r}: an option cannot be called {option}, which is taken")
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"algorithm {name!r}: its option {option} needs a default")


def name_of(algorithm: Algorithm) -> str:
    """The name by which ``find_algorithm`` finds its class."""
    kind = type(algorithm)
    return next((name for name, known in ALGORITHMS.items() if known is kind), f"{kind.__module__}:{kind.__qualname__}")


def changed_to(kind: type[Algorithm], algorithm: Algorithm) -> Algorithm:
    """Another algorithm; the options that both have from one class keep their values, the others are its defaults.

    So are values that it cannot have, as a replay memory cannot be drawn from whole.
    """
    before, after = _declared(type(algorithm)), _declared(kind)
    kept = {name: getattr(algorithm, name) for name in after if before.get(name) is after[name]}
    return kind(**{name: value for name, value in kept.items() if _can_have(kind, name, value)})


def _can_have(kind: type[Algorithm], name: str, value: object) -> bool:
    try:
        kind(**{name: value})  # type: ignore[arg-type]
    except UserError:
        return False
    return True


def _declared(kind: type[Algorithm]) -> dict[str, type]:
    """The class that each option is from."""
    return {
        option.name: next(base for base in kind.__mro__ if option.name in inspect.get_annotations(base))
        for option in dataclasses.fields(kind)
    }
