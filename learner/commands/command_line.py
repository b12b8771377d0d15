"""Command lines made from dataclasses, whose mistakes get one line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from actors.errors import EnvironmentFault, NonFiniteError, UserError
from learner.commands.signals import ended_by

log = logging.getLogger("touchdown")

T = TypeVar("T")

_TYPES = tyro.constructors.ConstructorRegistry()
_OTHER_NAMES = {
    "lr": "--learning-rate",
    "clip-coef": "--clip-range",
    "clip-param": "--clip-range",
    "env-id": "--env",
    "log-dir": "--run-dir",
    "max-lag": "--max-policy-lag",
    "num-workers": "--actors",
    "num-env-runners": "--actors",
    "workers": "--actors",
    "cuda": "--device",
    "loss": "--algorithm",
}
"""What other libraries call our options, where the letters are too different to guess it from them."""


@_TYPES.primitive_rule
def _labels(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Names and values in turn. tyro would make an option of each name that a default has, --role, in place of ours."""
    if info.type != dict[str, str]:
        return None

    def read(words: list[str]) -> dict[str, str]:
        if len(words) % 2:
            raise ValueError("takes names and values in turn")
        return dict(zip(words[::2], words[1::2], strict=True))

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE ...]",
        instance_from_str=read,
        is_instance=lambda it: isinstance(it, dict),
        str_from_instance=lambda it: [word for pair in it.items() for word in pair],
    )


@_TYPES.primitive_rule
def _whole_number(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """An int, also written as 1e6."""
    if info.type is not int:
        return None

    def read(words: list[str]) -> int:
        with contextlib.suppress(ValueError):
            return int(words[0])
        with contextlib.suppress(ValueError):
            if (number := float(words[0])).is_integer():
                return int(number)
        raise ValueError(f"takes a whole number, not {words[0]!r}")

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=read,
        is_instance=lambda it: isinstance(it, int) and not isinstance(it, bool),
        str_from_instance=lambda it: [str(it)],
    )


def parse(make: type[T] | Callable[..., T], arguments: Sequence[str], default: T | None, prog: str, text: str) -> T:
    """Arguments as a dataclass, over the values of ``default``. ``--help`` prints all options and ends the program.

    ``text`` introduces the help; its examples, lines that begin with ``python -m``, keep lines of their own.

    Raises:
        UserError: an unknown option or a value that does not fit, or one that is no text.
    """
    require_text(arguments)
    told = io.StringIO()
    text = re.sub(r"\n+(?=python -m)", "\n\n", text)
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(make, args=list(arguments), default=default, prog=prog, description=text, registry=_TYPES)  # type: ignore[arg-type,return-value]
    except AssertionError as error:  # tyro's, of options that share a name
        raise UserError(f"two options have one name: {str(error).splitlines()[0]}") from error
    except SystemExit as end:
        if not end.code:
            raise
        said = _one_line(told.getvalue())
        if "did you mean" not in said and (word := re.match(r"Unrecognized options: --([\w-]+)", said)):
            name = _OTHER_NAMES.get(word[1].replace("_", "-"))
            if name and re.search(rf"^\W*{name}\s", _help(make, default), re.MULTILINE):
                said += f"; did you mean {name}?"
        raise UserError(said) from None


def require_text(arguments: Sequence[str]) -> None:
    """Make sure that arguments can be written down, and told to other processes.

    Raises:
        UserError: one is not text in the locale's encoding.
    """
    for word in arguments:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word!a} is no text here: give names in UTF-8, where the locale is (LC_ALL=C.UTF-8)")


def _help(make: Any, default: Any) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(make, args=["--help"], default=default, registry=_TYPES)
    return said.getvalue()


def _one_line(box: str) -> str:
    """tyro titles and frames its errors, where the locale has no lines with dashes, and follows them with help."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours, on a terminal
    lines = [line.strip("│ ") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and set(line) <= set("─╭╮╰╯-")]
    first = 2 if 1 in rules else 1
    end = min((i for i in rules if i > first), default=None)
    said = " ".join(lines[first:end] if rules else lines)
    nearest = [line for i, line in enumerate(lines) if line.startswith("--") and i not in rules]
    if "Perhaps you meant" in box and nearest:
        said += f"; did you mean {' or '.join(line.split()[0].rstrip(',') for line in nearest[:2])}?"
    return re.sub(r"^Error parsing [\w.]+: ", "", said.strip()) or box.strip()


@contextlib.contextmanager
def one_line_errors(prog: str) -> Iterator[None]:
    """Report what a user can mend in one line: exit 2 for a bad request, 1 for a run that could not go on."""
    try:
        yield
    except UserError as error:
        fail(prog, error, 2)
    except EnvironmentFault as error:
        log.debug("%s", error.details)
        fail(prog, error, 1)
    except NonFiniteError as error:
        fail(prog, error, 1)
    except OSError as error:
        fail(prog, error, 1)


def fail(prog: str, error: BaseException, code: int) -> NoReturn:
    """Print the error, unless it comes of a signal, and end the program."""
    if ended := ended_by(error):
        raise ended from None
    print(f"{prog}: error: {error}", file=sys.stderr)
    sys.exit(code)
