"""The bearer token: where it comes from. Only its digest is kept and sent on, so that no log or file can hold it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from actors.errors import UserError

TOKEN_VARIABLE = "TOUCHDOWN_TOKEN"
_SHORTEST = 16


def read_token(path: Path | None) -> str | None:
    """The token from a file, or from the environment; None: neither is given.

    The variable is taken out of the environment, which all that this process starts would inherit.

    Raises:
        UserError: the file cannot be read, or the token could be guessed.
    """
    variable = os.environ.pop(TOKEN_VARIABLE, None)
    if path is not None:
        try:
            token, where = path.read_text().strip(), str(path)
        except (OSError, UnicodeError) as error:
            raise UserError(f"cannot read the token from {path}: {error}") from error
    elif variable is not None:
        token, where = variable.strip(), TOKEN_VARIABLE
    else:
        return None
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable():
        raise UserError(
            f"the token in {where} must be {_SHORTEST} printable ASCII characters or more, "
            'such as python -c "import secrets; print(secrets.token_urlsafe())" makes'
        )
    return token


def digest(token: str) -> bytes:
    """What is kept and compared instead of the token."""
    return hashlib.sha256(token.encode()).digest()
