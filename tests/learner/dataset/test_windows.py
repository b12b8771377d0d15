"""Windows of recorded episodes: by hand, and by the episodes that they are cut from."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.distributions import DISTRIBUTIONS
from actors.spec import PolicySpec
from actors.trees import Array, Tree, map_leaves
from learner.dataset.dataset import Dataset, open_dataset
from learner.dataset.windows import Windows, counted, sums_to_come
from learner.dataset.writer import DatasetWriter
from learner.memory.packing import as_learned
from tests.actors.examples import random_policy
from tests.learner.dataset.recordings import FORMS, episodes

LENGTHS = (5, 1, 12, 3)


def recorded(path: Path, form_name: str) -> Dataset:
    """Four episodes in two parts."""
    form = FORMS[form_name]
    for writer, lengths in (("one", LENGTHS[:2]), ("two", LENGTHS[2:])):
        with_writer = DatasetWriter(path, form.env_id, form.observation, form.action, writer)
        with_writer.add(episodes(form, lengths), {"person": True})
        with_writer.close()
    return open_dataset(path)


def windows_of(dataset: Dataset, length: int) -> Windows:
    """Of the first distribution over such actions, unscaled."""
    kind = next(name for name, kind in DISTRIBUTIONS.items() if isinstance(dataset.action, kind.space))
    spec = PolicySpec(dataset.env_id, dataset.observation.form, dataset.action, kind)
    return Windows(dataset, spec, random_policy(spec).distribution, length)


def whole(dataset: Dataset, episode: int) -> tuple[dict[str, Array], Tree]:
    """All steps of one episode, straight from its part."""
    part = dataset.part(int(dataset.in_part[episode]))
    one = part.segments(int(dataset.segment[episode]), int(dataset.segment[episode]) + 1)
    seen, _ = dataset.observation.restored(one.observations, one.final_observations, one.earlier, one.segment_lengths)
    return {"observations": as_learned(dataset.observation.form, seen), "rewards": one.rewards}, one.actions


@pytest.mark.parametrize("form", [name for name in FORMS if name != "far actions"])
@pytest.mark.parametrize("length", [1, 4, 20])
def test_every_window_is_what_was_flown(tmp_path: Path, form: str, length: int) -> None:
    dataset = recorded(tmp_path / "data", form)
    windows = windows_of(dataset, length)
    every = [(episode, first) for episode, steps in enumerate(dataset.lengths) for first in range(steps)]
    order = np.random.default_rng(0).permutation(len(every))  # windows of both parts side by side
    chosen = [every[i] for i in order]
    found = windows.read(np.array([e for e, _ in chosen]), np.array([f for _, f in chosen]))
    for row, (episode, first) in enumerate(chosen):
        steps, actions = whole(dataset, episode)
        count = min(length, len(steps["rewards"]) - first)
        here = slice(first, first + count)
        np.testing.assert_array_equal(found["is_step"][row], np.arange(length) < count)
        np.testing.assert_array_equal(found["observations"][row, :count], steps["observations"][here])
        encoded = dataset.action.encode(actions)
        before = np.concatenate([np.zeros_like(encoded[:1]), encoded])[here]
        np.testing.assert_array_equal(found["previous_actions"][row, :count], before)
        to_come = [steps["rewards"][t:].astype(np.float64).sum() for t in range(first, first + count)]
        np.testing.assert_allclose(found["returns_to_go"][row, :count], to_come, atol=1e-5)
        for name, column in found.items():  # nothing of the next episode
            assert not column[row, count:].any(), name


@pytest.mark.parametrize("form", [name for name in FORMS if name != "far actions"])
def test_actions_are_flown_again_as_they_were(tmp_path: Path, form: str) -> None:
    dataset = recorded(tmp_path / "data", form)
    spec = windows_of(dataset, 1)._spec
    policy = random_policy(spec)
    for part in range(2):
        actions = dataset.part(part).actions
        again = policy.distribution.flyable(policy.distribution.as_sampled(actions))
        map_leaves(functools.partial(np.testing.assert_allclose, atol=1e-6), again, actions)


def test_the_best_share_are_the_episodes_of_the_highest_returns(tmp_path: Path) -> None:
    dataset = recorded(tmp_path / "data", "vectors")
    best = dataset.best(0.5)
    assert best.num_episodes == 2
    np.testing.assert_array_equal(np.sort(best.returns), np.sort(dataset.returns)[-2:])
    assert dataset.asked == dataset.returns.max()
    episode = int(np.argmax(best.returns))
    found = windows_of(best, 30).read(np.array([episode]), np.array([0]))
    assert found["is_step"].sum() == best.lengths[episode]
    np.testing.assert_allclose(found["returns_to_go"][0, 0], best.returns[episode], atol=1e-5)


def test_statistics_are_of_all_steps_once(tmp_path: Path) -> None:
    dataset = recorded(tmp_path / "data", "vectors")
    observed = np.concatenate([*windows_of(dataset, 1).observed()])
    every = np.concatenate([dataset.part(i).observations for i in range(2)])
    np.testing.assert_array_equal(observed, every)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_sums_to_come_are_those_of_each_range(lengths: list[int]) -> None:
    rng = np.random.default_rng(len(lengths))
    rewards = rng.standard_normal(40).astype(np.float32)
    sizes = np.array(lengths)
    begins = rng.integers(0, 40 - sizes)
    found = np.split(sums_to_come(rewards, begins, sizes), np.cumsum(sizes)[:-1])
    for begin, size, sums in zip(begins, sizes, found, strict=True):
        np.testing.assert_allclose(
            sums, [rewards[t : begin + size].sum() for t in range(begin, begin + size)], atol=1e-5
        )
    np.testing.assert_array_equal(counted(sizes), np.concatenate([np.arange(size) for size in sizes]))
