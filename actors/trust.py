"""Whose code runs here: a policy's file names its environment, and must not choose which module is imported."""

from __future__ import annotations

from collections.abc import Collection

from actors.errors import UserError


def require_named(env_id: str, modules: Collection[str]) -> None:
    """Make sure that the module which ``package.module:Id-v0`` would import is one that the user named.

    Raises:
        UserError: it is not; says how to name it.
    """
    module, colon, _ = env_id.partition(":")
    if colon and module not in modules:
        raise UserError(f"{env_id} would import {module}, which nobody named: add --module {module} if you trust it")
