"""What a function keeps in Python between calls: counters, tensors and arrays in its globals, closure or attributes."""

from __future__ import annotations

import array
import collections
import dataclasses
import functools
import random
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_NOT_THE_USERS = {"torch", "numpy", "learner", "actors", "builtins"}
_LIBRARIES = _NOT_THE_USERS | sys.stdlib_module_names
"""Whose classes and functions are not looked into; of objects of the standard library's what they hold is."""
_DEPTH = 8


def remembered(function: Any) -> dict[str, Any]:
    """Everything that a function can see and change, by name; equal before and after a call that changed nothing.

    Of random numbers the state of whoever draws them counts, as ``Drawn``. Libraries are not looked into, nor what only
    C code can see (an iterator's position, say).
    """
    return dict(_visit(getattr(function, "__name__", "loss"), function, 0, set()))


def _visit(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield name, repr(value)
        return
    if (drawn := _drawn(value)) is not None:
        yield name, Drawn(drawn)
        return
    if isinstance(value, _Same):
        yield name, value
        return
    yield name, _Same(value, _contents(value))
    if id(value) in seen or depth > _DEPTH or isinstance(value, Tensor | np.ndarray):
        return
    seen.add(id(value))
    for key, part in _parts(value):
        yield from _visit(f"{name}{key}", part, depth + 1, seen)


def _contents(value: Any) -> Any:
    """What an object holds that is not among its parts, to be compared."""
    if isinstance(value, Tensor):
        return None if value.is_inference() else value._version
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else value.tobytes()
    if isinstance(value, bytearray | array.array | memoryview):
        return bytes(value)
    return None


def _drawn(value: Any) -> Any:
    """The state of what draws random numbers."""
    if isinstance(value, torch.Generator):
        return value.get_state().cpu().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", value[key]) for key in list(value))
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.MethodType | types.BuiltinMethodType):
        yield from (("", getattr(value, "__func__", None)), (".__self__", value.__self__))
    elif isinstance(value, staticmethod | classmethod):
        yield "", value.__func__
    elif isinstance(value, property):
        yield "", value.fget
    elif isinstance(value, types.ModuleType):
        yield from _of_random_numbers(value)
    elif isinstance(value, nn.Module):
        yield from _of_network(value)
    else:
        yield from _of_object(value)


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object of the user's holds, its class and what that inherits from the user's others."""
    if isinstance(value, types.FunctionType) and _package(value) not in _LIBRARIES:
        yield from _of_function(value)
    if _package(value) not in _NOT_THE_USERS:
        yield from ((f".{key}", part) for key, part in getattr(value, "__dict__", {}).items() if key[:2] != "__")
    yield from _of_class(value if isinstance(value, type) else type(value), value)


def _of_class(kind: type, value: Any) -> Iterator[tuple[str, Any]]:
    for one in kind.__mro__:
        if _package(one) not in _LIBRARIES:
            yield from ((f".{key}", part) for key, part in vars(one).items() if not _is_usual(key))
            slots = vars(one).get("__slots__", ())
            for slot in [slots] if isinstance(slots, str) else slots:
                yield f".{slot}", getattr(value, slot, None)


def _is_usual(name: str) -> bool:
    """Whether every class has something of that name."""
    return name[:2] == "__" and name != "__call__"


def _of_network(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """What its layers hold besides parameters and buffers: where these change in place, a recording has them too."""
    for name, layer in network.named_modules():
        for key, part in vars(layer).items():
            if key[0] != "_" and key != "training":
                yield f".{name}.{key}" if name else f".{key}", _Same(part, None) if isinstance(part, Tensor) else part
        yield from _of_class(type(layer), layer)


def _of_random_numbers(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Whoever draws what the functions of ``random`` and ``numpy.random`` give."""
    if module is random:
        yield "'s numbers", random._inst
    elif module in (np, np.random):
        yield "'s random numbers", np.random.mtrand._rand


def _package(value: Any) -> str:
    kind = value if isinstance(value, type | types.FunctionType) else type(value)
    return str(kind.__module__).partition(".")[0]


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    names = set(_names(function.__code__))
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f": {name}", value
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in _LIBRARIES:
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


@dataclasses.dataclass(frozen=True)
class Drawn:
    """How far random numbers are drawn, by whoever it was."""

    state: Any


class _Same:
    """Equal only to the same object with the same note; it keeps the object, so that no other takes its identity."""

    def __init__(self, value: Any, note: Any) -> None:
        self._value, self._note = value, note

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value and self._note == other._note

    __hash__ = None  # type: ignore[assignment]
