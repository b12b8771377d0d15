"""The service for those who watch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from actors.policy import Policy
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from serve.service.tokens import digest
from tests.serve.served import PATIENCE, running


def saved(directory: Path, policies: Mapping[str, Policy], modules: Sequence[str] = ()) -> Policies:
    """Policies by name, served from ``directory``."""
    for name, policy in policies.items():
        policy.save(directory / name)
    return Policies({name: directory / name for name in policies}, modules)


@contextlib.contextmanager
def served(policies: Policies, most_viewers: int = 64, token: str | None = None, port: int = 0) -> Iterator[str]:
    """Run a server; gives its address, such as ``127.0.0.1:1234``."""
    limits = HttpConfig(max_viewers=most_viewers, body_seconds=PATIENCE, access_log=False)
    with running(Service(policies, limits, digest(token) if token else None), port) as address:
        yield address.removeprefix("http://")
