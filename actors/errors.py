"""The two errors a user can meet: a request that cannot be met, and numbers that stopped being numbers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A request that cannot be met. Its message is one line: what was wrong and what would be right."""


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity where training cannot go on; the message names the column or the term."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(names[:12])}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


class LostContactError(RuntimeError):
    """One of several learners that work together did not answer the others."""
