"""Running statistics, merged a batch at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.networks.normalizer import Normalizer
from tests.learner import property_test


@property_test
@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, -3.0, 1e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_merged_batches_have_the_statistics_of_everything(counts: list[int], offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [(offset + rng.normal(scale=1 + i, size=(count, 3))).astype(np.float32) for i, count in enumerate(counts)]
    normalizer = Normalizer(3)
    for batch in batches:
        normalizer.update(batch)
    everything = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(normalizer.mean, everything.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(normalizer.std, np.sqrt(everything.var(0) + 1e-8), rtol=1e-5)


def test_before_the_first_batch_nothing_is_changed() -> None:
    normalizer = Normalizer(2)
    assert normalizer.mean.tolist() == [0, 0]
    assert normalizer.std.tolist() == [1, 1]


def test_a_component_that_never_varies_can_be_divided_by() -> None:
    normalizer = Normalizer(2)
    normalizer.update(np.array([[5, 1], [5, 3]], np.float32))
    assert normalizer.mean.tolist() == [5, 2]
    assert normalizer.std[0] > 0
    assert normalizer.std[1] == pytest.approx(1)


def test_it_goes_on_from_its_state() -> None:
    rng = np.random.default_rng(0)
    first, second = Normalizer(2), Normalizer(2)
    first.update(rng.normal(size=(5, 2)))
    second.load_state(first.state())
    batch = rng.normal(size=(7, 2))
    first.update(batch)
    second.update(batch)
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.std, second.std)
    assert first.mean.dtype == first.std.dtype == np.float32
