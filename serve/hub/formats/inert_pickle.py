"""A pickle read from its opcodes, with nothing in it imported, called or made: what it would call becomes a record."""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Collection
from typing import Any

from actors.errors import UserError

_MOST_BYTES = 64 * 1024**2
_MOST_OPCODES = 100_000
"""A hundred times what the pickle of a wrapper and its spaces has."""
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes whose argument is a value."""
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclasses.dataclass(frozen=True)
class Named:
    """A class or a function that the pickle names; it is not looked up."""

    name: str
    """module.name"""


@dataclasses.dataclass(eq=False)
class Record:
    """What a call would have made, had anybody made it."""

    name: str
    """module.name of what would have been called."""
    arguments: tuple[Any, ...]
    state: Any = None
    """What it would have been given to set itself up with."""


def read_inert(data: bytes, packages: Collection[str]) -> Any:
    """The one value of a pickle of protocol 2 or later: numbers, texts, bytes, lists, tuples, dictionaries, records.

    Args:
        data: the pickle.
        packages: those whose classes and functions it may name.

    Raises:
        UserError: it is damaged, too large, names something else, or does what only other pickles do.
    """
    if len(data) > _MOST_BYTES:
        raise UserError(f"it has more than {_MOST_BYTES:,} bytes")
    machine = _Machine(packages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count == _MOST_OPCODES:
                raise UserError(f"it has more than {_MOST_OPCODES:,} opcodes")
            if opcode.name == "STOP":
                return machine.end()
            machine.take(opcode.name, argument)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        raise UserError(f"it is damaged, or no pickle: {line}") from error
    raise AssertionError("genops ends with STOP or raises")


class _Machine:
    """The stack, the marks in it, and the memo."""

    def __init__(self, packages: Collection[str]) -> None:
        self._packages = packages
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        """The stacks below each mark that is open."""
        self._memo: dict[int, Any] = {}

    def end(self) -> Any:
        """What is left."""
        if self._marked or len(self._stack) != 1:
            raise ValueError("it ends amid a value")
        return self._stack[0]

    def take(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "MARK":
            self._marked.append(self._stack)
            self._stack = []
        elif name == "PROTO":
            if argument < 2:
                raise ValueError(f"protocol {argument}")
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name == "GLOBAL":
            self._name(*argument.split(" "))
        elif name == "STACK_GLOBAL":
            self._name(*self._pop(2))
        elif name in _BUILDING:
            _BUILDING[name](self)
        elif name != "FRAME":
            raise UserError(f"it has the opcode {name}, which no pickle of numbers and their settings needs")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("a value is missing")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        taken, self._stack = self._stack, self._marked.pop()
        return taken

    def _name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        if module.partition(".")[0] not in self._packages:
            raise UserError(f"it names {module}.{name}"[:200] + f", which is of none of {', '.join(self._packages)}")
        self._stack.append(Named(f"{module}.{name}"))

    def _tuple(self) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items))

    def _append(self) -> None:
        self._extend(self._pop(1))

    def _appends(self) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list | Record):
            raise TypeError("items of what is no list")
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set_item(self) -> None:
        self._update(self._pop(2))

    def _set_items(self) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: list[Any]) -> None:
        """Enter items into a dictionary; those of a record, an OrderedDict say, are not kept."""
        keys, values = items[::2], items[1::2]
        if not isinstance(self._stack[-1], dict | Record) or len(keys) != len(values):
            raise TypeError("entries of what is no dictionary")
        if not all(isinstance(key, str) for key in keys):  # the hash of a deep tuple takes for ever
            raise TypeError("a key that is no text")
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(zip(keys, values, strict=True))

    def _call(self) -> None:
        """REDUCE and NEWOBJ."""
        called, arguments = self._pop(2)
        if not (isinstance(called, Named) and isinstance(arguments, tuple)):
            raise TypeError("a call of what is no name")
        self._stack.append(Record(called.name, arguments))

    def _build(self) -> None:
        (state,) = self._pop(1)
        if not isinstance(self._stack[-1], Record):
            raise TypeError("a state of what was not made")
        self._stack[-1].state = state


_BUILDING: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": _Machine._tuple,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "BUILD": _Machine._build,
}
