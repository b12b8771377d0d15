"""What we make of Ray's HAProxy before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve.service.haproxy import changed, require_own


def test_a_configuration_of_another_ray_is_not_taken() -> None:
    with pytest.raises(ValueError, match="has nothing like mode 666"):
        changed("global\n")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_a_directory_that_is_another_users_is_not_taken(tmp_path: Path) -> None:
    inside = tmp_path / "theirs" / "node"
    inside.mkdir(parents=True)
    require_own(inside)
    assert inside.stat().st_mode & 0o777 == 0o700
    os.chown(inside.parent, 65534, 65534)
    with pytest.raises(PermissionError, match="theirs is another user's"):
        require_own(inside)
