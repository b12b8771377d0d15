"""Policies where they are kept."""

from __future__ import annotations

from pathlib import Path

from actors.errors import UserError
from actors.policy import Policy
from learner.keeping.storage import open_storage


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
