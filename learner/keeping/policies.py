"""Policies where they are kept."""

from __future__ import annotations

import re
from pathlib import Path

from actors.errors import UserError
from actors.policy import Policy
from learner.keeping.storage import open_storage

_LISTED = 12
"""Versions that an error names."""


def find_policy(location: str | Path) -> Policy:
    """The policy of a run, or of a directory that holds just one.

    Raises:
        UserError: there is none, or it is damaged.
    """
    storage = open_storage(location)
    if "policy" in storage.names():
        storage = storage.within("policy")
    try:
        data = storage.read("policy.safetensors")
    except FileNotFoundError as error:
        raise UserError(f"no policy in {storage}: policy.safetensors is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {storage}: {error.strerror or error}") from error
    return Policy.parse(data, f"{storage}/policy.safetensors")


def find_version(name: str) -> Policy:
    """The policy of a run, runs/a; one of its kept versions, runs/a@40; or its best, runs/a@best.

    Raises:
        UserError: there is none, or it is damaged; names the versions that there are.
    """
    match = re.fullmatch(r"(.+)@(\d+|best)", name)
    if not match:
        return find_policy(name)
    run, version = match.groups()
    if version == "best":
        if "best" not in open_storage(run).names():
            raise UserError(f"{run} has kept no best policy: it was evaluated too seldom; see --eval-every")
        return find_policy(f"{run}/best")
    kept = open_storage(run).within("versions").names()
    if version not in kept:
        numbers = sorted(int(it) for it in kept if it.isdigit())
        there = f"those there are: {_shortened(numbers)}" if numbers else "it has kept none; see --keep-every"
        raise UserError(f"{run} has no version {version}; {there}")
    return find_policy(f"{run}/versions/{version}")


def _shortened(numbers: list[int]) -> str:
    words = [*map(str, numbers)]
    return ", ".join(words if len(words) <= _LISTED else [*words[: _LISTED // 2], "…", *words[-_LISTED // 2 :]])
