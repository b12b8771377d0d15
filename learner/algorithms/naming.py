"""What configurations name: one of ours, or one's own as package.module:name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from actors.errors import UserError, unknown
from actors.imports import import_named

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
        hint = f"; your own is {module.rpartition('.')[0]}:{module.rpartition('.')[2]}" if "." in module else ""
        raise UserError(f"{unknown(kind, name, known)}{hint}")
    found = import_named(kind, module, attribute)
    if not callable(found):
        raise UserError(f"{kind} {name!r} is a {type(found).__name__}, not a function or class")
    return found  # type: ignore[no-any-return]
