"""Rollouts of pictures: what a batch is put together to again is what was seen."""

import gymnasium
import numpy as np
import pytest

from actors.environments import describe
from actors.episode import EpisodeBatch
from actors.evaluation import fly_episodes
from actors.policy import Policy
from actors.rollout import Rollout
from actors.vectors import make_environments
from tests.actors.examples import random_policy

FRAMES = 3
TICKING = f"tests.actors.fake_environments:Ticking-v0 | FrameStackObservation(stack_size={FRAMES})"
IN_PARTS = TICKING.replace("v0", "v0(parts=True)")


def seen_after(steps: np.ndarray) -> np.ndarray:
    """What is seen after so many steps of an episode, [T, FRAMES]: how many there were at each frame."""
    return np.maximum(steps[:, None] + np.arange(1 - FRAMES, 1), 0)


def policy(env_id: str = TICKING) -> Policy:
    spec = describe(env_id).policy_spec(trunk="2x3/2", hidden_sizes=(4,))
    return random_policy(spec)


def assert_as_seen(batch: EpisodeBatch, flown_by: Policy) -> None:
    space = flown_by.spec.observation
    whole, after = space.restored(batch.observations, batch.final_observations, batch.earlier, batch.segment_lengths)
    steps = whole[:, -1, 0, 0].astype(int)
    assert (whole == whole[:, :, :1, :1]).all()
    np.testing.assert_array_equal(whole[:, :, 0, 0], seen_after(steps))
    ends = np.cumsum(batch.segment_lengths) - 1
    np.testing.assert_array_equal(after[:, :, 0, 0], seen_after(steps[ends] + 1))
    inside = np.setdiff1d(np.arange(len(steps) - 1), ends)
    np.testing.assert_array_equal(steps[inside + 1], steps[inside] + 1)
    log_probs = flown_by.distribution.log_prob(flown_by.forward(whole), batch.actions)
    np.testing.assert_allclose(log_probs, batch.notes["log_prob"], rtol=1e-4, atol=1e-6)


def test_fragments_go_on_with_the_frames_before_them() -> None:
    flies = policy()
    rollout = Rollout(make_environments(TICKING, 4, 0), 1)
    for _ in range(3):
        batch = rollout.fragments(flies, 16)
        assert_as_seen(batch, flies)
    assert (batch.observations[np.cumsum(batch.segment_lengths)[:-1], 0, 0] > 0).any(), "segments went on"


def test_pictures_among_parts_are_kept_once_too() -> None:
    flies = policy(IN_PARTS)
    batch = Rollout(make_environments(IN_PARTS, 4, 0), 1).fragments(flies, 64)
    assert batch.observations["eye"].shape == (batch.num_steps, 20, 20)
    kept = batch.observations, batch.final_observations, batch.earlier, batch.segment_lengths
    for seen in flies.spec.observation.restored(*kept):
        np.testing.assert_array_equal(seen["eye"][:, :, 0, 0], seen["steps"][:, :, 0])


def test_whole_episodes_begin_with_their_first_frame() -> None:
    flies = policy()
    batch = Rollout(make_environments(TICKING, 3, 0), 1).episodes(flies, 4, seed=5)
    assert batch.num_segments == 12
    assert_as_seen(batch, flies)
    assert not batch.earlier.any()


def test_a_batch_holds_each_frame_once() -> None:
    space = gymnasium.make("tests.actors.fake_environments:Ticking-v0").observation_space
    assert space.shape == (20, 20)
    batch = Rollout(make_environments(TICKING, 2, 0), 1).fragments(policy(), 256)
    frames = batch.num_steps + FRAMES * batch.num_segments
    assert batch.observations.nbytes + batch.earlier.nbytes + batch.final_observations.nbytes == 400 * frames
    assert len(batch.segments(1, 3).earlier) == 2


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_score_is_flown_of_the_same_stacks(deterministic: bool) -> None:
    returns, lengths, cut = fly_episodes(policy(), [1, 2, 3], deterministic)
    np.testing.assert_array_equal(returns, lengths)
    assert not cut.any()
