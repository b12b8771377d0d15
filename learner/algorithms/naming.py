"""What configurations name: one of ours, or one's own as package.module:name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from actors.errors import UserError, unknown

T = TypeVar("T")


def find(kind: str, name: str, known: Mapping[str, T]) -> T | Callable[..., object]:
    """What is known by that name, or the function or class at ``package.module:name``.

    Args:
        kind: what is looked for, in a word.
        name: as a configuration gives it.
        known: what needs no module.

    Raises:
        UserError: there is none, or it is no function, class or such.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise unknown(kind, name, known)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{kind} {name!r}: {error}") from error
    if not callable(found):
        raise UserError(f"{kind} {name!r} is a {type(found).__name__}, not a function or class")
    return found  # type: ignore[no-any-return]
