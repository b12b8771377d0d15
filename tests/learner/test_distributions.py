"""Action distributions in torch; test_networks.py and tests/actors/test_policy.py hold them to those in numpy."""

from __future__ import annotations

import math

import pytest
import torch

import actors.distributions
from actors.spaces import Discrete
from learner.distributions import DISTRIBUTIONS
from tests.learner import make_spec


def test_who_acts_and_who_learns_know_the_same_ones() -> None:
    assert DISTRIBUTIONS.keys() == actors.distributions.DISTRIBUTIONS.keys()


@pytest.mark.parametrize("size", [2, 5])
def test_the_largest_entropy_is_that_of_the_uniform_policy(size: int) -> None:
    distribution = DISTRIBUTIONS["categorical"](make_spec(action=Discrete(size)))
    _, entropies = distribution.evaluate(torch.zeros(1, size), torch.zeros(1, dtype=torch.int64))
    assert entropies.item() == pytest.approx(distribution.max_entropy)


@pytest.mark.parametrize(("name", "uniform"), [("multi_categorical", math.log(6)), ("bernoulli", 3 * math.log(2))])
def test_entropies_of_several_add_up(name: str, uniform: float) -> None:
    distribution = DISTRIBUTIONS[name](make_spec(name))
    taken = torch.zeros(1, *make_spec(name).action.shape, dtype=torch.int64)
    log_probs, entropies = distribution.evaluate(torch.zeros(1, make_spec(name).layer_sizes[-1]), taken)
    assert entropies.item() == pytest.approx(uniform) == distribution.max_entropy
    assert log_probs.item() == pytest.approx(-uniform)


def test_several_are_pytorchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 5, generator=generator)
    taken = torch.stack([torch.randint(3, (50,), generator=generator), torch.randint(2, (50,), generator=generator)], 1)
    parts = [torch.distributions.Categorical(logits=part) for part in logits.split([3, 2], dim=1)]
    log_probs, entropies = DISTRIBUTIONS["multi_categorical"](make_spec("multi_categorical")).evaluate(logits, taken)
    torch.testing.assert_close(log_probs, sum(part.log_prob(taken[:, i]) for i, part in enumerate(parts)))
    torch.testing.assert_close(entropies, sum(part.entropy() for part in parts))

    ones = torch.randint(2, (50, 3), generator=generator).to(torch.int8)
    switches = torch.distributions.Bernoulli(logits=logits[:, :3])
    log_probs, entropies = DISTRIBUTIONS["bernoulli"](make_spec("bernoulli")).evaluate(logits[:, :3], ones)
    torch.testing.assert_close(log_probs, switches.log_prob(ones.float()).sum(1))
    torch.testing.assert_close(entropies, switches.entropy().sum(1))


def test_one_choice_has_an_entropy_that_can_be_divided_by() -> None:
    assert DISTRIBUTIONS["categorical"](make_spec(action=Discrete(1))).max_entropy == 1
