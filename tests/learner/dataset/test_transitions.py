"""Recorded steps with what follows them, held against plain loops over the episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.distributions import DISTRIBUTIONS
from actors.spec import PolicySpec
from learner.dataset.dataset import Dataset
from learner.dataset.transitions import Transitions
from learner.memory.packing import as_learned
from tests.actors.examples import random_policy
from tests.learner.dataset.recordings import FORMS
from tests.learner.dataset.test_windows import recorded

GAMMA, SCALE, CLIP = 0.9, 0.5, 0.8


def transitions_of(dataset: Dataset, n_step: int) -> Transitions:
    """Of the first distribution over such actions."""
    kind = next(name for name, kind in DISTRIBUTIONS.items() if isinstance(dataset.action, kind.space))
    spec = PolicySpec(dataset.env_id, dataset.observation.form, dataset.action, kind)
    return Transitions(dataset, spec, random_policy(spec).distribution, n_step, GAMMA, SCALE, CLIP)


@pytest.mark.parametrize("form", [name for name in FORMS if name != "far actions"])
@pytest.mark.parametrize("n_step", [1, 3, 20])
def test_every_step_leads_where_it_was_flown_to(tmp_path: Path, form: str, n_step: int) -> None:
    dataset = recorded(tmp_path / "data", form)
    every = [(episode, first) for episode, steps in enumerate(dataset.lengths) for first in range(steps)]
    chosen = np.array(every)[np.random.default_rng(0).permutation(len(every))]  # both parts side by side
    found = transitions_of(dataset, n_step).read(chosen[:, 0], chosen[:, 1])
    ended = []
    for row, (episode, first) in enumerate(chosen):
        part = dataset.part(int(dataset.in_part[episode]))
        segment = int(dataset.segment[episode])
        one = part.segments(segment, segment + 1)
        kept = one.observations, one.final_observations, one.earlier, one.segment_lengths
        whole = dataset.observation.restored(*kept)
        seen = np.concatenate([as_learned(dataset.observation.form, column) for column in whole])
        steps = int(one.segment_lengths[0])
        last = min(first + n_step, steps)
        rewards = np.clip(one.rewards[first:last].astype(np.float64), -CLIP, CLIP) * SCALE
        ended.append(last == steps and bool(one.terminated[0]))
        np.testing.assert_array_equal(found["observations"][row], seen[first])
        np.testing.assert_array_equal(found["next_observations"][row], seen[last])
        np.testing.assert_allclose(found["returns"][row], (rewards * GAMMA ** np.arange(len(rewards))).sum(), atol=1e-6)
        np.testing.assert_allclose(found["discounts"][row], 0 if ended[-1] else GAMMA ** (last - first), atol=1e-6)
    assert 0 < sum(ended) < len(ended)
