"""ViZDoom's games are processes of their own, which share memory with whoever plays: neither outlives an actor."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium

from actors import doom_keeper

GAMES = 8
"""As many as are worth starting for a score: in the time that it takes, one that runs flies 500 steps."""


class Doom(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Around a ViZDoom environment: its game ends with this process, and leaves no file.

    Whatever ends the process, the keeper then ends its games. The shared memory has no name as soon as both have it,
    so that the system frees it with them.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._game: Any = getattr(env.unwrapped, "game")  # noqa: B009  # which mypy does not know

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's; the first starts the game."""
        if self._game.is_running():
            return self.env.reset(**options)
        self._game.set_doom_config_path(str(_keeper() / "doom.ini"))  # it stands in the command of the game
        saved = Path("_vizdoom")  # Doom makes this folder where it is started, and here saves nothing
        is_ours = not saved.exists()
        first = self.env.reset(**options)
        for name in ("SM", "MQCtr", "MQDoom"):
            (doom_keeper.SHARED / f"ViZDoom{name}{self._game.get_instance_id()}").unlink(missing_ok=True)
        if is_ours and saved.is_dir() and not any(saved.iterdir()):
            saved.rmdir()
        return first


def is_doom(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether an environment is one of ViZDoom's, or a user's made of these."""
    if "vizdoom" not in sys.modules:
        return False
    from vizdoom.gymnasium_wrapper.base_gymnasium_env import VizdoomEnv

    return isinstance(env.unwrapped, VizdoomEnv)


@functools.cache
def _keeper() -> Path:
    """A directory for the files of this process's games, and a process that ends them and removes it after this one."""
    directory = tempfile.mkdtemp(prefix="touchdown-doom-")
    command = [sys.executable, "-P", doom_keeper.__file__, directory]
    nowhere = subprocess.DEVNULL
    keeper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, cwd="/", start_new_session=True
    )
    keeper.wait()  # it goes on as nobody's child
    assert keeper.stdin is not None
    end = os.dup(keeper.stdin.fileno())  # which is closed by nothing but the end of this process
    keeper.stdin.close()
    os.register_at_fork(after_in_child=functools.partial(_forget, end))
    return Path(directory)


def _forget(end: int) -> None:
    """A fork is another process: its games are its own."""
    os.close(end)
    _keeper.cache_clear()
