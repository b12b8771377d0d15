"""An environment's name: a Gymnasium id, the arguments that it is made with, and the wrappers around it, in one line.

``LunarLander-v3(enable_wind=True, wind_power=15.0) | TimeAwareObservation | my_package.wrappers:Scale(factor=2)``

Whatever names an environment takes such a line: configurations, policies, commands. What it means is decided here.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from actors.errors import UserError

_ID = re.compile(r"([\w.]+:)?([\w-]+/)?[\w.-]+")
_WRAPPER = re.compile(r"([A-Za-z_][\w.]*:)?[A-Za-z_]\w*")
_MOST = 1000
"""Characters in a name."""
_OUR_CHOICE = ("id", "render_mode", "disable_env_checker", "vectorization_mode")
"""Arguments of ``gymnasium.make`` that whoever flies decides on."""
OURS = ("ActionMask", "Hide", "Screen", "Tabular")
"""Wrappers in ``actors.wrappers``."""
_REGISTRARS = {
    re.compile(r"Vizdoom"): ("vizdoom.gymnasium_wrapper", "doom"),
    re.compile(r"ALE/|\w+NoFrameskip-v[04]$"): ("ale_py", "atari"),
}
"""Which module registers ids of a pattern when it is imported, and which extra of ours brings it."""
NO_WRAPPERS = ("RecordVideo", "HumanRendering", "RenderCollection", "RecordEpisodeStatistics", "Autoreset")
"""Gymnasium's wrappers that write files, open windows, keep pictures, or change when an episode ends."""

Arguments = dict[str, Any]
"""Arguments of an environment or a wrapper by name, each a Python literal."""


@dataclasses.dataclass(frozen=True)
class WrapperName:
    """A wrapper: one of ours or of Gymnasium's by its bare name, or ``package.module:Class``; and its arguments."""

    name: str
    arguments: Arguments = dataclasses.field(default_factory=dict)

    @property
    def module(self) -> str:
        """Where it is to be found."""
        return self.name.rpartition(":")[0] or ("actors.wrappers" if self.name in OURS else "gymnasium.wrappers")

    @property
    def attribute(self) -> str:
        """What it is called there."""
        return self.name.rpartition(":")[2]

    def __str__(self) -> str:
        return self.name + _call(self.arguments)


@dataclasses.dataclass(frozen=True)
class EnvironmentName:
    """An environment's name in its parts."""

    id: str
    """A Gymnasium id, with no module before it."""
    module: str = ""
    """What is imported before the id is known; empty: nothing."""
    arguments: Arguments = dataclasses.field(default_factory=dict)
    wrappers: tuple[WrapperName, ...] = ()
    """The innermost first."""

    @property
    def made(self) -> str:
        """What ``gymnasium.make`` takes: the id, and the module before it."""
        return f"{self.module}:{self.id}" if self.module else self.id

    @property
    def registrar(self) -> tuple[str, str] | None:
        """The module that registers the id when it is imported, and the extra of ours that brings it; None: no such."""
        found = (whose for ids, whose in _REGISTRARS.items() if not self.module and ids.match(self.id))
        return next(found, None)

    @property
    def modules(self) -> list[str]:
        """Modules that are imported to make it, Gymnasium's own apart."""
        own = [wrapper.module for wrapper in self.wrappers if ":" in wrapper.name]
        return list(dict.fromkeys([*([self.module] if self.module else []), *own]))

    def __str__(self) -> str:
        return " | ".join([self.made + _call(self.arguments), *map(str, self.wrappers)])

    @property
    def slug(self) -> str:
        """The id, fit for a file's name."""
        return self.id.replace("/", "-")

    def code(self) -> list[str]:
        """Lines of Python that make it, once ``gymnasium`` is imported."""
        lines = [f"import {self.registrar[0]}"] if self.registrar else []
        lines.append(f"env = gymnasium.make({', '.join([repr(self.made), *_pairs(self.arguments)])})")
        for wrapper in self.wrappers:
            kind = f"gymnasium.wrappers.{wrapper.name}"
            if wrapper.module != "gymnasium.wrappers":
                kind = wrapper.attribute
                lines.append(f"from {wrapper.module} import {kind}")
            lines.append(f"env = {kind}({', '.join(['env', *_pairs(wrapper.arguments)])})")
        return lines


def parse(text: str) -> EnvironmentName:
    """A name in its parts.

    Raises:
        UserError: it is none; says what would be.
    """
    if len(text) > _MOST:
        raise UserError(f"an environment's name has {_MOST} characters at most, not {len(text)}")
    made, arguments, rest = _head(text, _ID, text)
    wrappers = []
    while rest:
        if not rest.startswith("|"):
            raise UserError(f"{text!r} is no environment: write wrappers so: {made} | TimeAwareObservation")
        name, options, rest = _head(rest[1:].lstrip(), _WRAPPER, text)
        wrappers.append(WrapperName(name, options))
        if name in NO_WRAPPERS:
            raise UserError(f"wrapper {name} is not for environments that are trained on")
    for argument in _OUR_CHOICE:
        if argument in arguments:
            raise UserError(f"{made}: {argument} is not yours to choose: leave it out")
    module, _, env_id = made.rpartition(":")
    return EnvironmentName(env_id, module, arguments, tuple(wrappers))


def named(env: str, arguments: Sequence[str], wrappers: Sequence[str]) -> str:
    """The name with more arguments, ``key=value`` each, and more wrappers around it.

    Raises:
        UserError: one of them cannot be read.
    """
    name = parse(env)
    more = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (equals and key.isidentifier()):
            raise UserError(f"env_kwargs takes name=value, such as enable_wind=True, not {argument!r}")
        if key in more:
            raise UserError(f"env_kwargs gives {key} twice")
        more[key] = _word(value)
    around = [one for wrapper in wrappers for one in parse(f"{name.made} | {wrapper}").wrappers]
    full = dataclasses.replace(name, arguments={**name.arguments, **more}, wrappers=(*name.wrappers, *around))
    return str(parse(str(full)))


def _word(value: str) -> Any:
    """A Python literal, or else the text itself: 8x8 for '8x8'."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _head(text: str, pattern: re.Pattern[str], whole: str) -> tuple[str, Arguments, str]:
    """What a text begins with: a name, its arguments in brackets if there are any; and the rest."""
    found = pattern.match(text)
    if not found:
        wanted = "a wrapper's name after |" if pattern is _WRAPPER else "a Gymnasium id, such as LunarLander-v3"
        raise UserError(f"{whole!r} is no environment: give {wanted}")
    name, rest = found[0], text[found.end() :].lstrip()
    if not rest.startswith("("):
        return name, {}, rest
    for end in (i + 1 for i, letter in enumerate(rest) if letter == ")"):  # the first that closes what is open
        try:
            call = ast.parse(f"f{rest[:end]}", mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        assert isinstance(call, ast.Call)
        return name, _literals(name, call), rest[end:].lstrip()
    raise UserError(f"{whole!r} is no environment: what is in the brackets after {name} is not name=value, …")


def _literals(name: str, call: ast.Call) -> Arguments:
    if call.args:
        raise UserError(f"{name}: arguments are given by name, as in {name}(name=value)")
    arguments: Arguments = {}
    for keyword in call.keywords:
        if keyword.arg in arguments:
            raise UserError(f"{name}: {keyword.arg} is given twice")
        try:
            if keyword.arg is None:
                raise ValueError
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, MemoryError, RecursionError) as error:
            raise UserError(
                f"{name}: {keyword.arg or '**'} must be a number, a text in quotes, True, False, None or a list "
                "of these"
            ) from error
    return arguments


def _pairs(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in arguments.items()]


def _call(arguments: Mapping[str, Any]) -> str:
    return f"({', '.join(_pairs(arguments))})" if arguments else ""
