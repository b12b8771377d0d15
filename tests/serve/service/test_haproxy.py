"""What we make of Ray's HAProxy before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve.service.haproxy import changed, require_own


def test_a_configuration_of_another_ray_is_not_taken() -> None:
    with pytest.raises(ValueError, match="has nothing like mode 666"):
        changed("global\n")


RAYS = """global
    stats socket /x/admin.sock mode 666 level admin
defaults
    mode http
frontend prometheus
    bind *:9101
listen stats
    bind *:8404
frontend http_frontend
    bind {host}:8000
    default_backend default_backend
backend default_backend
    http-request return status 404
backend http-touchdown
    server here 127.0.0.1:30000 check
    server there 10.0.0.7:30000 check
"""


@pytest.mark.parametrize(
    ("host", "replica"),
    [("10.0.0.8", "10.0.0.8"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("[fd00::8]", "[fd00::8]")],
)
def test_replicas_are_found_where_they_listen(host: str, replica: str) -> None:
    """Which is where the service does: at one of the machine's addresses alone, if that is asked for."""
    text = changed(RAYS.format(host=host))
    assert f"    server here {replica}:30000 check\n    server there 10.0.0.7:30000 check\n" in text


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_a_directory_that_is_another_users_is_not_taken(tmp_path: Path) -> None:
    inside = tmp_path / "theirs" / "node"
    inside.mkdir(parents=True)
    require_own(inside)
    assert inside.stat().st_mode & 0o777 == 0o700
    os.chown(inside.parent, 65534, 65534)
    with pytest.raises(PermissionError, match="theirs is another user's"):
        require_own(inside)
