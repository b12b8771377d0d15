"""Pickles that are read and not executed: of every protocol, and of those who mean harm."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.errors import UserError
from serve.hub.formats.inert_pickle import Record, read_inert

PLAIN = {
    "numbers": [1, -1, 255, 65_000, 2**31, -(2**70), 1.5, float("inf"), True, False, None],
    "texts": ["", "ä" * 300, b"", bytes(300)],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ([], {}, ({"a": ()},))],
}


class Settings:
    """Something of a package that may be named."""

    def __init__(self) -> None:
        self.values = {"a": 1}


def pushed(text: str) -> bytes:
    """An opcode that pushes a short text."""
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(protocol: int) -> None:
    plain = PLAIN if protocol > 2 else {"numbers": PLAIN["numbers"], "tuples": PLAIN["tuples"]}  # 2 has no bytes
    assert read_inert(pickle.dumps(plain, protocol), ()) == plain


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_objects_become_records_that_keep_what_they_were_made_of(protocol: int) -> None:
    settings, ordered = Settings(), collections.OrderedDict(a=1, b=2)
    saved = pickle.dumps([settings, settings, ordered, np.arange(3.0)], protocol)
    one, same, other, array = read_inert(saved, ("tests", "collections", "numpy", "_codecs"))
    assert one is same
    assert (one.name, one.arguments, one.state) == (f"{__name__}.Settings", (), {"values": {"a": 1}})
    assert other.name == "collections.OrderedDict"
    assert array.name.rpartition(".")[2] == ("_reconstruct" if protocol < 5 else "_frombuffer")
    assert isinstance(array, Record)


def hostile(path: Path) -> dict[str, bytes]:
    """What would touch ``path`` if it were unpickled, but for those that nobody could load."""

    class Touches:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {path}",)

    class Evaluates:
        def __reduce__(self) -> Any:
            return builtins.eval, (f"__import__('pathlib').Path({str(path)!r}).touch()",)

    plain = pickle.dumps(PLAIN)
    built = pickle.EMPTY_DICT + pickle.EMPTY_DICT + pickle.BUILD + pickle.STOP
    return {
        "system": pickle.dumps(Touches()),
        "system of protocol 2": pickle.dumps(Touches(), 2),
        "eval": pickle.dumps([Evaluates()]),
        "eval of protocol 0": pickle.dumps(Evaluates(), 0),
        "a module within one that may be named": b"\x80\x04" + pushed("numpyx.a") + pushed("b") + b"\x93.",
        "a name that is a number": b"\x80\x04K\x01" + pushed("b") + b"\x93.",
        "a call of a text": b"\x80\x04" + pushed("b") + b")R.",
        "a state for a dictionary": b"\x80\x04" + built,
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent id": b"\x80\x02K\x01Q.",
        "an instance of protocol 0": b"(ios\nsystem\n.",
        "an unknown opcode": b"\x80\x04\xff.",
        "a key that takes for ever": b"\x80\x04}" + b")" + b"\x94h\x00\x86" * 40 + b"K\x01s.",
        "a set of keys amiss": b"\x80\x04}(K\x01u.",
        "nothing": b"",
        "no end": plain[:-1],
        "half": plain[: len(plain) // 2],
        "two values": b"\x80\x04NN.",
        "an open mark": b"\x80\x04N(.",
        "no mark": b"\x80\x04t.",
        "an empty stack": b"\x80\x04\x94.",
        "a memory of nothing": b"\x80\x04h\x07.",
        "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",
        "more bytes than there can be": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"abc.",
        "a text in no alphabet": b"\x80\x04\x8c\x02\xff\xfe.",
        "protocol 0": b"\x80\x00N.",
        "too many opcodes": b"\x80\x04" + b"N" * 100_001 + b".",
    }


@pytest.mark.parametrize("name", hostile(Path()))
def test_what_means_harm_is_refused_in_one_line_and_nothing_is_executed(name: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with pytest.raises(UserError) as refused:
        read_inert(hostile(touched)[name], ("numpy", "collections"))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert not touched.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("system", f"it names {os.system.__module__}.system, which is of none of numpy, collections"),
        ("eval", "it names builtins.eval"),
        ("a module within one that may be named", "it names numpyx.a.b"),
        ("an extension", "the opcode EXT1"),
        ("a persistent id", "the opcode BINPERSID"),
        ("an unknown opcode", "it is damaged, or no pickle: at position 2, opcode"),
        ("half", "it is damaged, or no pickle"),
        ("too many opcodes", "more than 100,000 opcodes"),
    ],
)
def test_what_is_wrong_is_said(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read_inert(hostile(tmp_path / "touched")[name], ("numpy", "collections"))
    assert said in str(refused.value)


def test_the_traps_work(tmp_path: Path) -> None:
    for name in ("system", "system of protocol 2", "eval", "eval of protocol 0"):
        pickle.loads(hostile(tmp_path / "touched")[name])
        (tmp_path / "touched").unlink()


def test_reading_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = pickle.dumps([Settings(), np.float64(3)])
    fails: Callable[..., Any] = lambda *_, **__: pytest.fail("something was imported")  # noqa: E731
    monkeypatch.setattr(builtins, "__import__", fails)
    records = read_inert(saved, ("tests", "numpy"))
    monkeypatch.undo()
    assert [record.name.rpartition(".")[2] for record in records] == ["Settings", "scalar"]
