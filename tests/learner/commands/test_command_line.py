"""Command lines made from dataclasses: what they take, and one line for what they do not."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from actors.errors import NonFiniteError, UserError
from learner.commands.command_line import fail, one_line_errors, parse


@dataclasses.dataclass(frozen=True)
class Options:
    """Some options of a part."""

    gamma: float = 0.9
    """Discount."""
    schedule: Literal["constant", "linear"] = "constant"
    """How it changes."""
    sizes: tuple[int, ...] = (64, 64)
    """Units."""

    def __post_init__(self) -> None:
        if self.gamma > 1:
            raise UserError(f"gamma must be 1 or less, not {self.gamma}")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command."""

    episodes: int = 100
    """Episodes to fly."""
    path: Path | None = None
    """Where."""
    video: bool = True
    """Film it."""
    options: Options = Options()

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise UserError(f"episodes must be 1 or more, not {self.episodes}")


def read(*arguments: str, default: Command | None = None) -> Command:
    return parse(Command, arguments, default, "prog", "Some text.")


def said(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments)
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert not set(message) & set("│─╭╮╰╯")
    return message


def test_options_over_defaults() -> None:
    assert read() == Command()
    assert read("--episodes", "5", "--options.sizes", "32", "16", "--no-video", "--path", "a/b") == Command(
        episodes=5, path=Path("a/b"), video=False, options=Options(sizes=(32, 16))
    )


def test_options_over_given_defaults() -> None:
    default = Command(episodes=7, options=Options(gamma=0.5))
    assert read("--options.schedule", "linear", default=default) == Command(
        episodes=7, options=Options(gamma=0.5, schedule="linear")
    )


def test_an_unknown_option_gets_the_nearest() -> None:
    message = said("--episods", "5")
    assert "--episods" in message
    assert "did you mean --episodes" in message


def test_whole_numbers_as_people_write_them() -> None:
    assert read("--episodes", "1e5").episodes == 100_000
    assert read("--episodes", "1_000").episodes == 1000
    assert read("--options.sizes", "1e1", "8").options.sizes == (10, 8)
    for wrong in ("1.5", "1e-3", "inf", "nan", "many"):
        assert said("--episodes", wrong).endswith(f"takes a whole number, not {wrong!r}")


@dataclasses.dataclass(frozen=True)
class Ours:
    """An option that others call another name."""

    learning_rate: float = 1e-3
    """Step size."""


@pytest.mark.parametrize("name", ["--lr"])
def test_what_other_libraries_call_an_option(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*; did you mean --learning-rate\\?"):
        parse(Ours, [name, "1"], None, "prog", "")
    assert "did you mean" not in said(name, "1")


def test_an_unknown_option_far_from_any() -> None:
    assert "--zzzzzz" in said("--zzzzzz", "5")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--episodes", "many"), ("--episodes", "many")),
        (("--options.schedule", "cosine"), ("schedule", "constant", "linear")),
        (("--options.sizes", "wide"), ("sizes", "wide")),
        (("--episodes",), ("--episodes",)),
        (("stray",), ("stray",)),
    ],
)
def test_values_that_do_not_fit(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = said(*arguments)
    for word in words:
        assert word in message


def test_an_impossible_value_is_the_dataclasss_own_error() -> None:
    assert said("--options.gamma", "1.5") == "gamma must be 1 or less, not 1.5"
    assert said("--episodes", "0") == "episodes must be 1 or more, not 0"


def test_help_ends_well_and_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read("--help")
    assert not end.value.code
    out = capsys.readouterr().out
    for text in ("Some text.", "--episodes", "Episodes to fly.", "--options.gamma", "Discount.", "100", "0.9"):
        assert text in out


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda: UserError("unknown preset 'pp'"), 2, "unknown preset 'pp'"),
        (lambda: NonFiniteError("update 3: loss became NaN"), 1, "update 3: loss became NaN"),
        (lambda: OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "No space left on device"),
    ],
    ids=["request", "numbers", "disk"],
)
def test_errors_are_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], make: Callable[[], Exception], code: int, words: str
) -> None:
    with pytest.raises(SystemExit) as end, one_line_errors("prog"):
        raise make()
    assert end.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("prog: error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(KeyError), one_line_errors("prog"):
        raise KeyError("a bug of ours")


def test_all_well_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with one_line_errors("prog"):
        pass
    assert capsys.readouterr().err == ""


def test_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        fail("prog", RuntimeError("it broke"), 3)
    assert end.value.code == 3
    assert capsys.readouterr().err == "prog: error: it broke\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes_are_one_line_in_any_locale(encoding: str) -> None:
    """Where lines cannot be drawn, tyro frames what it says another way."""
    command = [sys.executable, "-m", "learner.evaluate", "runs/first", "--episode", "3"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().endswith("--episode, 3; did you mean --episodes or --max-episode-steps?")
    assert len(result.stderr.strip().splitlines()) == 1


@dataclasses.dataclass(frozen=True)
class Places:
    """Where processes are."""

    actor_labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of actors."""
    learner_labels: dict[str, str] = dataclasses.field(default_factory=lambda: {"role": "learner"})
    """Of the learner."""


def test_labels_are_names_and_values_whatever_the_default() -> None:
    default = Places({"role": "actor"})
    assert parse(Places, [], default, "x", "") == default
    given = parse(Places, ["--actor-labels", "zone", "a", "disk", "fast", "--learner-labels"], default, "x", "")
    assert given == Places({"zone": "a", "disk": "fast"}, {})
    with pytest.raises(UserError, match="takes names and values in turn"):
        parse(Places, ["--actor-labels", "zone"], default, "x", "")
