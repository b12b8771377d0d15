"""What a function keeps in Python between calls: counters, tensors and arrays in its globals, closure or attributes."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

_NOT_THE_USERS = {"torch", "numpy", "learner", "actors", "builtins"}
_DEPTH = 6


def remembered(function: Any) -> dict[str, Any]:
    """Everything that a function can see and change, by name; equal before and after a call that changed nothing.

    Libraries are not looked into, nor what only C code can see (an iterator's position, say).
    """
    return dict(_visit(getattr(function, "__name__", "loss"), function, 0, set()))


def _visit(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield name, repr(value)
        return
    version = value._version if isinstance(value, Tensor) and not value.is_inference() else None
    contents = value.tobytes() if isinstance(value, np.ndarray) and not value.dtype.hasobject else None
    yield name, _Same(value, (version, contents))
    if id(value) in seen or depth > _DEPTH or isinstance(value, Tensor | np.ndarray):
        return
    seen.add(id(value))
    for key, part in _parts(value):
        yield from _visit(f"{name}{key}", part, depth + 1, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", value[key]) for key in list(value))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__func__), (".__self__", value.__self__))
    elif not isinstance(value, types.ModuleType) and _package(value) not in _NOT_THE_USERS:
        if isinstance(value, types.FunctionType):
            yield from _of_function(value)
        yield from ((f".{key}", part) for key, part in getattr(value, "__dict__", {}).items() if key[:2] != "__")


def _package(value: Any) -> str:
    kind = value if isinstance(value, type | types.FunctionType) else type(value)
    return str(kind.__module__).partition(".")[0]


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    names = set(_names(function.__code__))
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f": {name}", value
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in _NOT_THE_USERS:
            yield from ((f": {name}.{key}", vars(value)[key]) for key in sorted(names & vars(value).keys()))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f": {name}", cell.cell_contents
        except ValueError:  # not assigned yet
            yield f": {name}", None
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


class _Same:
    """Equal only to the same object with the same note; it keeps the object, so that no other takes its identity."""

    def __init__(self, value: Any, note: Any) -> None:
        self._value, self._note = value, note

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value and self._note == other._note

    __hash__ = None  # type: ignore[assignment]
