"""What must not be published: access tokens, and where on whose machine a run was made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import huggingface_hub

from actors.errors import UserError

REMOVED = "REMOVED"

_TOKEN = re.compile(
    r"hf_\w{16,}|api_org_\w{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abprs]-[\w-]{10,}|eyJ[\w-]{16,}\.[\w-]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY|://[\w.+-]{2,}:[\w.%+-]{4,}@"
)
"""Tokens of the services that one meets in training scripts: Hugging Face, GitHub, GitLab, OpenAI, AWS, Slack, JWTs."""

_SECRET_NAME = re.compile(r"token|secret|passw|credential|api[_-]?key", re.IGNORECASE)


def public_command(command: str) -> str | None:
    """A command line without secrets and without absolute paths, of which the last part stays.

    Returns:
        The command; None if it cannot be taken apart, and so cannot be vetted.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    public: list[str] = []
    secret_follows = False
    for word in words:
        if secret_follows and not word.startswith("-"):
            public.append(REMOVED)
            secret_follows = False
            continue
        name, equals, value = word.partition("=")
        named_secret = bool(_SECRET_NAME.search(name)) and (word.startswith("-") or bool(equals))
        secret_follows = named_secret and not equals
        if equals:
            public.append(f"{_public_word(name)}={REMOVED if named_secret else _public_word(value)}")
        else:
            public.append(_public_word(word))
    if words and PurePosixPath(words[0]).name.startswith("python"):
        public[0] = "python"
    return shlex.join(public)


def _public_word(word: str) -> str:
    if _TOKEN.search(word) or word in _own_tokens():
        return REMOVED
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(word)
        if path.is_absolute() or ".." in path.parts or word.startswith("~"):
            return path.name or REMOVED
    return word


def refuse_secrets(directory: Path, files: Iterable[Path]) -> None:
    """The last look at a package before it leaves: every byte of its files is searched.

    Raises:
        UserError: a file holds an access token, or the path of the user's home directory.
    """
    home = str(Path.home()).encode()
    at_home = re.compile(re.escape(home) + rb"""(?=[/\\"'\s])""")
    tokens = [re.compile(re.escape(token).encode()) for token in _own_tokens()]
    tokens.append(re.compile(_TOKEN.pattern.encode()))
    for file in files:
        data = file.read_bytes()
        name = file.relative_to(directory)
        if any(token.search(data) for token in tokens):
            raise UserError(f"{name} would hold what looks like an access token: nothing was published; take it out")
        if len(home) > 1 and at_home.search(data):
            raise UserError(f"{name} would hold a path of your home directory: nothing was published; take it out")


def _own_tokens() -> list[str]:
    token = huggingface_hub.get_token()
    return [token] if token else []
