"""Atari: EnvPool's games are Gymnasium's to the bit, in the wrappers that it has, and refused in others."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

from actors.environments import describe
from actors.errors import UserError
from actors.making import make_gymnasium
from actors.vectors import envpool_lacks, make_environments, require_envpool

pytest.importorskip("ale_py")
pytest.importorskip("cv2")


def flown(game: str, seen: str = "", made: str = "(max_num_frames_per_episode=2401)") -> str:
    return f"{game}NoFrameskip-v4{made} | AtariPreprocessing(noop_max=1{seen}) | FrameStackObservation(stack_size=4)"


@pytest.mark.parametrize(
    ("env_id", "steps"),
    [
        (flown("Pong", made=""), 1000),  # 21 points are lost, and another game begins
        (flown("Breakout", made="(full_action_space=True)"), 400),
        (flown("Breakout"), 700),  # cut after 601 steps, a no-op and 2,400 frames
        (flown("MsPacman", ", frame_skip=3, screen_size=(60, 42)"), 850),
        ("MsPacmanNoFrameskip-v4(max_num_frames_per_episode=400) | AtariPreprocessing(noop_max=1, frame_skip=2)", 250),
    ],
)
def test_frames_and_rewards_are_equal_to_the_bit(env_id: str, steps: int) -> None:
    """But for what is seen after an episode's last step if that was cut short; the next step is a reset."""
    ours, theirs = (make_environments(env_id, 1, 0, backend) for backend in ("envpool", "gymnasium"))
    rng, slots = np.random.default_rng(0), np.arange(1)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    size, ends, total = describe(env_id).action_space.n, 0, 0.0  # type: ignore[attr-defined]
    for _ in range(steps):
        actions = rng.integers(size, size=1)
        mine, expected = ours.step(actions, slots), theirs.step(actions, slots)
        for column, wanted in zip(mine[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(column, wanted)
        is_over = expected[2][0] or expected[3][0]
        if not is_over:
            np.testing.assert_array_equal(mine[0], expected[0])
        ends, total = ends + is_over, total + abs(expected[1][0])
    assert ends
    assert total
    ours.close()
    theirs.close()


def test_starts_are_as_random_as_gymnasiums() -> None:
    """noop_max=3: each start is one that Gymnasium has after 1 to 3 no-ops, and all of them are seen."""
    environments = make_environments(flown("Freeway").replace("noop_max=1", "noop_max=3"), 12, 0, "envpool")
    starts = {frames[-1].tobytes() for frames in environments.reset()}
    environments.close()
    env = make_gymnasium(flown("Freeway", ", frame_skip=1"))
    frames, _ = env.reset(seed=0)
    expected = {frames[-1].tobytes()}
    for _ in range(2):
        frames, *_ = env.step(0)
        expected.add(frames[-1].tobytes())
    env.close()
    assert starts == expected
    assert len(expected) == 3


def test_sticky_actions_are_another_task_that_envpool_has_too() -> None:
    env_id = "ALE/Pong-v5(frameskip=1) | AtariPreprocessing | FrameStackObservation(stack_size=4)"
    require_envpool(describe(env_id))


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("PongNoFrameskip-v4", "EnvPool flies it as AtariPreprocessing shows it"),
        ("ALE/Pong-v5", "EnvPool flies it as AtariPreprocessing shows it"),
        ("PongNoFrameskip-v4 | Screen(height=84, width=84)", "wrapper Screen is Gymnasium's"),
        (flown("Pong") + " | ClipReward(min_reward=-1)", "wrapper ClipReward is Gymnasium's"),
        (
            flown("Pong", ", terminal_on_life_loss=True"),
            "EnvPool has no AtariPreprocessing(terminal_on_life_loss=True)",
        ),
        (flown("Pong", ", grayscale_obs=False"), "EnvPool has no AtariPreprocessing(grayscale_obs=False)"),
        (flown("Pong").replace("noop_max=1", "noop_max=0"), "EnvPool begins with a no-op at least"),
        (flown("Pong").replace("stack_size=4", "stack_size=4, padding_type='zero'"), "padding_type='reset'"),
        (flown("Pong", made="(max_episode_steps=100)"), "EnvPool has no argument max_episode_steps of it"),
        ("PongNoFrameskip-v4(frameskip=2) | AtariPreprocessing(frame_skip=1)", "after frameskip=1"),
    ],
)
def test_what_envpool_lacks_is_one_line(env_id: str, reason: str) -> None:
    said = envpool_lacks(describe(env_id))
    assert said
    assert reason in said
    assert "\n" not in said


def test_its_own_limit_of_frames_is_the_only_one() -> None:
    """A limit of ours would count the frames that AtariPreprocessing skips."""
    env = make_gymnasium(flown("Pong"), max_episode_steps=50)
    env.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        _, _, _, truncated, _ = env.step(0)
        steps += 1
    assert steps == 600
    assert not isinstance(env, gymnasium.wrappers.TimeLimit)


def test_what_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    for env_id in ("PongNoFrameskip-v4", "ALE/Pong-v5"):
        with pytest.raises(UserError) as caught:
            make_gymnasium(env_id)
        assert str(caught.value) == f"environment {env_id!r} needs ale_py: pip install 'touchdown[atari]'"
