"""Whose code runs here: a policy's file names its environment, and must not choose which module is imported."""

from __future__ import annotations

from collections.abc import Collection

from actors.environment_name import parse
from actors.errors import UserError


def require_named(env_id: str, modules: Collection[str]) -> None:
    """Make sure that the modules which an environment's name would import are among those that the user named.

    Raises:
        UserError: it is not; says how to name it.
    """
    for module in parse(env_id).modules:
        if module not in modules:
            raise UserError(
                f"{env_id} would import {module}, which nobody named: add --module {module} if you trust it"
            )
