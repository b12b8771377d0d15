"""Action distributions in torch; test_networks.py and tests/actors/test_policy.py hold them to those in numpy."""

from __future__ import annotations

import pytest
import torch

import actors.distributions
from learner.distributions import DISTRIBUTIONS
from tests.learner import make_spec


def test_who_acts_and_who_learns_know_the_same_ones() -> None:
    assert DISTRIBUTIONS.keys() == actors.distributions.DISTRIBUTIONS.keys()


@pytest.mark.parametrize("size", [2, 5])
def test_the_largest_entropy_is_that_of_the_uniform_policy(size: int) -> None:
    distribution = DISTRIBUTIONS["categorical"](make_spec(action_size=size))
    _, entropies = distribution.evaluate(torch.zeros(1, size), torch.zeros(1, dtype=torch.int64))
    assert entropies.item() == pytest.approx(distribution.max_entropy)


def test_one_choice_has_an_entropy_that_can_be_divided_by() -> None:
    assert DISTRIBUTIONS["categorical"](make_spec(action_size=1)).max_entropy == 1
