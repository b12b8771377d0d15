"""Action distributions in torch; test_networks.py and tests/actors/test_policy.py hold them to those in numpy."""

from __future__ import annotations

import math

import pytest
import torch

import actors.distributions
from actors.masks import FORBIDDEN
from actors.spaces import Discrete
from learner.networks.distributions import DISTRIBUTIONS
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


@pytest.mark.parametrize("name", ["categorical", "multi_categorical", "bernoulli"])
def test_what_is_forbidden_has_no_part_in_entropies_or_gradients(name: str) -> None:
    """As autograd has it of the same distribution over what is allowed alone."""
    width = make_spec(name).layer_sizes[-1]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, width, generator=generator, requires_grad=True)
    allows = torch.rand(40, width, generator=generator) < 0.6
    sizes = {"categorical": [3], "multi_categorical": [3, 2], "bernoulli": [3]}[name]
    for part in allows.split(sizes, dim=1):
        part[:, 0] = True
    masked = torch.where(allows, logits, FORBIDDEN)
    taken = torch.stack([part.argmax(1) for part in masked.split(sizes, dim=1)], 1)
    taken = {"categorical": taken[:, 0], "multi_categorical": taken, "bernoulli": (masked > 0).to(torch.int8)}[name]
    log_probs, entropies = DISTRIBUTIONS[name](make_spec(name)).evaluate(masked, taken)
    (gradient,) = torch.autograd.grad((log_probs + entropies).sum(), logits)
    assert torch.isfinite(gradient).all()
    assert (gradient[~allows] == 0).all()

    expected = torch.zeros(40, 2)
    for row in range(40):
        for i, part in enumerate(logits[row].split(sizes)):
            left = allows[row].split(sizes)[i]
            if name == "bernoulli":
                some = torch.distributions.Bernoulli(logits=part[left])
                expected[row] += torch.stack([some.log_prob(taken[row][left].float()).sum(), some.entropy().sum()])
            else:
                one = torch.distributions.Categorical(logits=part[left])
                place = int(left[: int(taken[row] if name == "categorical" else taken[row, i])].sum())
                expected[row] += torch.stack([one.log_prob(torch.tensor(place)), one.entropy()])
    torch.testing.assert_close(torch.stack([log_probs, entropies], 1), expected)
    (same,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, same)


def test_one_choice_has_an_entropy_that_can_be_divided_by() -> None:
    assert DISTRIBUTIONS["categorical"](make_spec(action=Discrete(1))).max_entropy == 1
