"""Directories that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.hub.directories import whole_directory


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill() -> None:
        with whole_directory(tmp_path / "new") as directory:
            (directory / "half").touch()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fill()
    assert not list(tmp_path.iterdir())
