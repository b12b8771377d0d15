"""The errors a user can meet: a request that cannot be met, an environment that raises, numbers that are none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str) -> str:
    """Text from elsewhere made fit for a terminal, a log or JSON: what would not print is escaped, line ends too.

    So an escape sequence in a file's name or contents reaches nobody's terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(ValueError):
    """A request that cannot be met. Its message is one line, printable: what was wrong and what would be right."""

    def __init__(self, message: object) -> None:
        super().__init__(printable(str(message)))


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity where training cannot go on; the message names the column or the term."""


class EnvironmentFault(RuntimeError):
    """An environment raised while it flew. Its message is one line that names the environment and the method."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message, details)  # both, so that pickle takes both to another process
        self.details = details
        """The traceback, for the log."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(names[:12])}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


class PolicyLostError(RuntimeError):
    """The policy that actors were to fly is no more: the learner died, or its node, before they had it."""


class LostContactError(RuntimeError):
    """One of several learners that work together did not answer the others."""
