"""What a viewer's keys do in environments that name their actions, and in those that do not."""

from __future__ import annotations

import pytest

from actors.making import make_gymnasium
from serve.watch.stick import Stick, stick_of
from tests.actors import fake_environments  # noqa: F401 registers Painted-v0

DOOM = ("nothing", "attack", "move right", "move left")
PONG = ("noop", "fire", "right", "left", "right fire", "left fire")


@pytest.mark.parametrize(
    ("env_id", "needed", "stick"),
    [
        ("CartPole-v1", "gymnasium", Stick(("action 0", "action 1"), left=0, right=1)),
        ("Acrobot-v1", "gymnasium", Stick(("action 0", "action 1", "action 2"), left=0, idle=1, right=2)),
        ("Pendulum-v1", "gymnasium", None),
        ("Painted-v0", "gymnasium", Stick(("noop", "move left", "up right fire"), idle=0, left=1)),
        ("VizdoomBasic-v1(frame_skip=4)", "vizdoom", Stick(DOOM, idle=0, left=3, right=2, up=1, fire=1)),
        ("VizdoomBasic-MultiBinary-v1", "vizdoom", None),
        ("PongNoFrameskip-v4", "ale_py", Stick(PONG, idle=0, left=3, right=2, up=1, fire=1)),
        ("ALE/Freeway-v5", "ale_py", Stick(("noop", "up", "down"), idle=0, up=1, down=2)),
    ],
)
def test_keys_stand_for_actions_by_their_names(env_id: str, needed: str, stick: Stick | None) -> None:
    pytest.importorskip(needed)
    env = make_gymnasium(env_id)
    assert stick_of(env) == stick
    env.close()


def test_several_buttons_at_once() -> None:
    pytest.importorskip("vizdoom")
    env = make_gymnasium("VizdoomDefendCenter-v1(max_buttons_pressed=2)")
    stick = stick_of(env)
    env.close()
    assert stick is not None
    assert "turn left + attack" in stick.labels
    assert stick.labels[stick.fire or 0] == "attack"
