"""Fragments that are joined are the whole episodes that were flown."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from actors import trees
from actors.actor import RolloutActor
from actors.episode import Array, EpisodeBatch
from actors.rollout import Rollout, RolloutConfig
from actors.vectors import make_environments
from learner.dataset.dataset import open_dataset
from learner.dataset.joining import EpisodeJoiner, EpisodeRecorder
from tests.actors.examples import assert_same_batches, policy_for, random_policy
from tests.actors.test_rollout_frames import TICKING
from tests.actors.test_rollout_frames import policy as picture_policy
from tests.learner.dataset.recordings import FORMS, episodes


def cut(batch: EpisodeBatch, slots: int, rng: np.random.Generator) -> list[tuple[EpisodeBatch, Array]]:
    """Batches of fragments as a rollout with so many slots would make them, of whole episodes without frames."""
    of_slots: list[list[list[EpisodeBatch]]] = []
    for slot in range(slots):
        rollouts: list[list[EpisodeBatch]] = [[]]
        for index in range(slot, batch.num_segments, slots):
            episode = batch.segments(index, index + 1)
            bounds = sorted({0, episode.num_steps, *rng.integers(1, episode.num_steps + 1, 2).tolist()})
            for start, stop in itertools.pairwise(bounds):
                rollouts[-1].append(piece(episode, start, stop))
                if stop < episode.num_steps or rng.random() < 0.3:
                    rollouts.append([])
        of_slots.append(rollouts)
    together = []
    for rollout in itertools.zip_longest(*of_slots, fillvalue=[]):
        if pieces := [*itertools.chain(*rollout)]:
            counts = [len(mine) for mine in rollout]
            together.append((EpisodeBatch.concatenate(pieces), np.repeat(np.arange(slots), counts)))
    return together


def piece(episode: EpisodeBatch, start: int, stop: int) -> EpisodeBatch:
    """Some steps of one episode."""
    ends = stop == episode.num_steps
    columns = {name: getattr(episode, name) for name in ("observations", "actions", "rewards", "notes")}
    return dataclasses.replace(
        episode,
        **trees.rows(columns, slice(start, stop)),
        segment_lengths=np.array([stop - start], np.int32),
        terminated=episode.terminated & ends,
        truncated=episode.truncated & ends,
        episode_returns=episode.episode_returns[: int(ends)],
        episode_lengths=episode.episode_lengths[: int(ends)],
    )


def sorted_by_return(batches: list[EpisodeBatch]) -> EpisodeBatch:
    singles = [batch.segments(i, i + 1) for batch in batches for i in range(batch.num_segments)]
    return EpisodeBatch.concatenate(sorted(singles, key=lambda single: float(single.episode_returns[0])))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["vectors", "tuple"])
def test_fragments_join_to_what_was_cut(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = episodes(FORMS[name], rng.integers(1, 9, 12).tolist(), seed)
    joiner = EpisodeJoiner()
    joined = [episode for batch, slots in cut(whole, 3, rng) for episode in joiner.whole(batch, slots)]
    assert_same_batches(sorted_by_return(joined), sorted_by_return([dataclasses.replace(whole, notes={}, memories={})]))


def test_what_rollouts_of_fragments_fly_is_joined() -> None:
    policy, slots = policy_for("CartPole-v1"), 5
    rollout = Rollout(make_environments("CartPole-v1", slots, 0), 1)
    joiner = EpisodeJoiner()
    streams: list[list[Array]] = [[] for _ in range(slots)]
    joined = []
    for _ in range(20):
        batch = rollout.fragments(policy, 8)
        joined += joiner.whole(batch, rollout.segment_slots)
        steps = np.split(batch.observations, np.cumsum(batch.segment_lengths)[:-1])
        for index, slot in enumerate(rollout.segment_slots):
            ended = (batch.terminated | batch.truncated)[index]
            streams[slot] += [*steps[index], *([batch.final_observations[index], None] if ended else [])]
    found = {
        np.concatenate([batch.observations, batch.final_observations]).tobytes()
        for whole in joined
        for batch in (whole.segments(i, i + 1) for i in range(whole.num_segments))
    }
    expected = set()
    for stream in streams:
        rows: list[Array] = []
        for row in stream:
            if row is None:
                expected.add(np.array(rows).tobytes())
            rows = [] if row is None else [*rows, row]
    assert len(expected) > 20
    assert found == expected
    for batch in joined:
        np.testing.assert_array_equal(batch.segment_lengths, batch.episode_lengths)


def test_pictures_keep_the_frames_before_an_episode() -> None:
    policy = picture_policy()
    rollout = Rollout(make_environments(TICKING, 4, 0), 1)
    joiner, space = EpisodeJoiner(), policy.spec.observation
    for _ in range(6):
        for batch in joiner.whole(rollout.fragments(policy, 16), rollout.segment_slots):
            assert not np.any(batch.earlier)
            steps = batch.observations[:, 0, 0].astype(int)  # type: ignore[call-overload, union-attr]
            expected = [step for length in batch.segment_lengths for step in range(length)]
            assert steps.tolist() == expected
            space.restored(batch.observations, batch.final_observations, batch.earlier, batch.segment_lengths)


def test_an_actor_keeps_what_it_flies(tmp_path: Path) -> None:
    policy = random_policy(policy_for("CartPole-v1").spec)
    actor = RolloutActor()
    recorder = EpisodeRecorder(f"{tmp_path}/recorded", "ppo")
    actor.prepare("CartPole-v1", RolloutConfig(n_envs=4, n_steps=50), 3, None, recorder)
    batches = [actor.collect(policy)[0] for _ in range(4)]
    assert all(batch.notes for batch in batches)
    actor.finish()
    dataset = open_dataset(tmp_path / "recorded")
    assert sorted(dataset.returns) == sorted(np.concatenate([batch.episode_returns for batch in batches]))
    assert dataset.sources == [{"policy": tmp_path.name, "preset": "ppo", "training": True}]
    part = dataset.part(0)
    sums = [
        part.rewards[start : start + length].sum() for start, length in zip(dataset.start, dataset.lengths, strict=True)
    ]
    np.testing.assert_allclose(sums, dataset.returns)
