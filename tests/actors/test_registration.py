"""Environments of a script, in another process: what Ray does with them, without Ray."""

import subprocess
import sys
import threading
from typing import Any

import gymnasium
import pytest

from actors.errors import UserError
from actors.registration import registration
from tests.actors.fake_environments import Wrong

SCRIPT = """
import sys
import gymnasium
from actors.registration import registration
from tests.actors.fake_environments import Wrong

class Mine(Wrong):
    size = 7

gymnasium.register("Mine-v0", entry_point=Mine, max_episode_steps=11)
gymnasium.register("Named-v0", entry_point="__main__:Mine", kwargs={"on_reset": lambda result: result})
sys.stdout.buffer.write(registration(sys.argv[1]))
"""
ELSEWHERE = """
import sys
from actors.making import make_gymnasium
from actors.errors import UserError
from actors.registration import register

try:
    register(sys.argv[1], sys.stdin.buffer.read())
    env = make_gymnasium(sys.argv[1])
    env.reset(seed=0)
    print(type(env.unwrapped).__name__, getattr(env.unwrapped, "size", None), env.spec.max_episode_steps)
except UserError as error:
    print(error)
"""


def run(script: str, *arguments: str, data: bytes = b"") -> bytes:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize(("env_id", "limit"), [("Mine-v0", 11), ("Named-v0", None)])
def test_an_environment_of_a_script_is_known_elsewhere(env_id: str, limit: int | None) -> None:
    assert run(ELSEWHERE, env_id, data=run(SCRIPT, env_id)).decode().split() == ["Mine", "7", str(limit)]


def test_what_is_known_everywhere_stays_as_it_is() -> None:
    assert registration("tests.actors.fake_environments:Wrong-v0") is None
    assert registration("Nowhere-v0") is None
    data = registration("LunarLander-v3")
    assert data is not None
    assert run(ELSEWHERE, "LunarLander-v3", data=data).decode().split() == ["LunarLander", "None", "1000"]


def test_a_module_that_is_missing_elsewhere_is_named_with_the_way_out() -> None:
    mine = SCRIPT.replace("class Mine", "import types\nsys.modules['hidden'] = types.ModuleType('hidden')\nclass Mine")
    mine = mine.replace("    size = 7", "    size = 7\nMine.__module__ = 'hidden'\nsys.modules['hidden'].Mine = Mine")
    said = run(ELSEWHERE, "Mine-v0", data=run(mine, "Mine-v0")).decode().splitlines()
    assert said == [
        "environment 'Mine-v0' cannot be sent to the processes that fly it (No module named 'hidden'): "
        "put it in a module that they can import, and name it package.module:Mine-v0"
    ]


def test_what_cannot_be_sent_is_refused_in_one_line() -> None:
    options: dict[str, Any] = {"on_step": threading.Lock()}
    gymnasium.register("Locked-v0", entry_point=Wrong, kwargs=options)
    try:
        with pytest.raises(UserError, match=r"'Locked-v0' cannot be sent .*lock.*name it package.module:Locked-v0"):
            registration("Locked-v0")
    finally:
        del gymnasium.registry["Locked-v0"]
