"""How fast environments are flown in real time."""

from __future__ import annotations

import pytest

from actors.making import make_gymnasium
from actors.pace import steps_a_second
from tests.actors import fake_environments  # noqa: F401 registers Echo-v0


@pytest.mark.parametrize(
    ("env_id", "rate"),
    [
        ("CartPole-v1 | FrameStackObservation(stack_size=4)", 50),
        ("Echo-v0", 30),
        ("VizdoomBasic-v1", 35),
        ("VizdoomBasic-v1(frame_skip=4) | Screen(height=30, width=45) | FrameStackObservation(stack_size=4)", 8.75),
        ("PongNoFrameskip-v4", 60),
        ("PongNoFrameskip-v4 | AtariPreprocessing(frame_skip=5) | FrameStackObservation(stack_size=4)", 12),
        ("ALE/Pong-v5", 15),
        ("Pong-v4(frameskip=(2, 5))", 20),
    ],
)
def test_fewer_steps_than_frames_where_a_step_takes_several(env_id: str, rate: float) -> None:
    env = make_gymnasium(env_id)
    assert steps_a_second(env, otherwise=30) == rate
    env.close()
