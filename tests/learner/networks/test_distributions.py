"""Action distributions in torch; test_networks.py and tests/actors/test_policy.py hold them to those in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import actors.discrete
import actors.distributions
import actors.gaussians
from actors.action_bounds import ActionBounds
from actors.gaussians import LOG_STD_RANGE
from actors.masks import FORBIDDEN
from actors.parts import Parts
from actors.spaces import Discrete, MultiBinary, MultiDiscrete
from learner.networks.distributions import DISTRIBUTIONS, EpsilonGreedy, SquashedGaussian
from tests.learner import make_spec


def test_who_acts_and_who_learns_know_the_same_ones() -> None:
    assert DISTRIBUTIONS.keys() == actors.distributions.DISTRIBUTIONS.keys()


@pytest.mark.parametrize("size", [2, 5])
def test_the_largest_entropy_is_that_of_the_uniform_policy(size: int) -> None:
    distribution = DISTRIBUTIONS["categorical"].of(make_spec(action=Discrete(size)))
    _, entropies = distribution.evaluate(torch.zeros(1, size), torch.zeros(1, dtype=torch.int64))
    assert entropies.item() == pytest.approx(distribution.max_entropy)


@pytest.mark.parametrize(("name", "uniform"), [("multi_categorical", math.log(6)), ("bernoulli", 3 * math.log(2))])
def test_entropies_of_several_add_up(name: str, uniform: float) -> None:
    distribution = DISTRIBUTIONS[name].of(make_spec(name))
    taken = torch.zeros(1, *make_spec(name).action.shape, dtype=torch.int64)
    log_probs, entropies = distribution.evaluate(torch.zeros(1, make_spec(name).layer_sizes[-1]), taken)
    assert entropies.item() == pytest.approx(uniform) == distribution.max_entropy
    assert log_probs.item() == pytest.approx(-uniform)


def test_several_are_pytorchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 5, generator=generator)
    taken = torch.stack([torch.randint(3, (50,), generator=generator), torch.randint(2, (50,), generator=generator)], 1)
    parts = [torch.distributions.Categorical(logits=part) for part in logits.split([3, 2], dim=1)]
    log_probs, entropies = DISTRIBUTIONS["multi_categorical"].of(make_spec("multi_categorical")).evaluate(logits, taken)
    torch.testing.assert_close(log_probs, sum(part.log_prob(taken[:, i]) for i, part in enumerate(parts)))
    torch.testing.assert_close(entropies, sum(part.entropy() for part in parts))

    ones = torch.randint(2, (50, 3), generator=generator).to(torch.int8)
    switches = torch.distributions.Bernoulli(logits=logits[:, :3])
    log_probs, entropies = DISTRIBUTIONS["bernoulli"].of(make_spec("bernoulli")).evaluate(logits[:, :3], ones)
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
    log_probs, entropies = DISTRIBUTIONS[name].of(make_spec(name)).evaluate(masked, taken)
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


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_is_a_categorical_of_its_probabilities(epsilon: float) -> None:
    generator = torch.Generator().manual_seed(0)
    q_values, allows = torch.randn(50, 3, generator=generator), torch.rand(50, 3, generator=generator) < 0.7
    allows[:, 1] = True
    masked = torch.where(allows, q_values, FORBIDDEN)
    distribution = EpsilonGreedy.of(make_spec("epsilon_greedy"))
    distribution.epsilon.fill_(epsilon)
    probabilities = distribution.probabilities(masked)
    expected = torch.where(allows, epsilon / allows.sum(1, keepdim=True), 0.0)
    expected[torch.arange(50), masked.argmax(1)] += 1 - epsilon
    torch.testing.assert_close(probabilities, expected)
    twin = actors.discrete.EpsilonGreedy(3, 0, epsilon)
    for action in range(3):
        taken = torch.full((50,), action)
        log_probs, entropies = distribution.evaluate(masked, taken)
        likely = allows[:, action] & (expected[:, action] > 0)
        torch.testing.assert_close(log_probs[likely], expected[likely, action].log())
        assert (log_probs[~likely] < -60).all()
        in_numpy = twin.log_prob(masked[likely].numpy(), taken[likely].numpy())
        torch.testing.assert_close(log_probs[likely], torch.from_numpy(in_numpy))
        torch.testing.assert_close(entropies, torch.distributions.Categorical(expected).entropy(), rtol=1e-5, atol=1e-6)


def test_the_uniform_epsilon_greedy_has_the_largest_entropy() -> None:
    distribution = EpsilonGreedy.of(make_spec("epsilon_greedy", action=Discrete(5)))
    distribution.epsilon.fill_(1.0)
    _, entropies = distribution.evaluate(torch.randn(1, 5), torch.zeros(1, dtype=torch.int64))
    assert entropies.item() == pytest.approx(distribution.max_entropy)


SQUASHED = make_spec("squashed_gaussian")


def squashed_parameters(scale: float = 1.0, count: int = 40) -> torch.Tensor:
    """Means and log σ, [B, 4] float64, to differentiate by."""
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(count, 4, dtype=torch.float64, generator=generator)).requires_grad_()


def pytorchs_squashed(parameters: torch.Tensor) -> torch.distributions.TransformedDistribution:
    means, log_stds = parameters.chunk(2, dim=1)
    tanh = torch.distributions.transforms.TanhTransform(cache_size=1)
    return torch.distributions.TransformedDistribution(torch.distributions.Normal(means, log_stds.exp()), [tanh])


def test_squashed_samples_and_their_probabilities_are_pytorchs_own() -> None:
    """And so are the gradients of both by the parameters, as those that reparametrise take them."""
    parameters, noise = squashed_parameters(0.7), squashed_parameters().detach()[:, :2].flip(0)
    assert parameters[:, 2:].max() < LOG_STD_RANGE[1]
    actions, log_probs = SquashedGaussian.of(SQUASHED).sample(parameters, noise)
    theirs = pytorchs_squashed(parameters)
    means, log_stds = parameters.chunk(2, dim=1)
    their_actions = theirs.transforms[0](means + log_stds.exp() * noise)
    their_log_probs = theirs.log_prob(their_actions).sum(1)
    torch.testing.assert_close(actions, their_actions)
    torch.testing.assert_close(log_probs, their_log_probs)
    up = torch.linspace(-1, 1, 40, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((a * up[:, None]).sum() + (up * log).sum(), parameters, retain_graph=True)[0]
        for a, log in ((actions, log_probs), (their_actions, their_log_probs))
    ]
    torch.testing.assert_close(*gradients)


def test_squashed_probabilities_are_of_the_change_of_variables() -> None:
    """log π(a) = log N(u) − log |da/du|, with the slope of tanh by autograd."""
    parameters = squashed_parameters(0.5)
    u = squashed_parameters().detach()[:, 2:].requires_grad_()
    (slopes,) = torch.autograd.grad(u.tanh().sum(), u)
    means, log_stds = parameters.chunk(2, dim=1)
    expected = (torch.distributions.Normal(means, log_stds.exp()).log_prob(u) - slopes.log()).sum(1)
    log_probs, surprises = SquashedGaussian.of(SQUASHED).evaluate(parameters, u.tanh())
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(surprises, -log_probs)


def test_squashed_probabilities_keep_their_digits_where_tanh_saturates() -> None:
    """In single precision tanh 12 is 1, and 1 − tanh² nothing; log (1 − tanh² u) is log 4 − 2 |u| to nine digits."""
    parameters = torch.tensor([[12.0, -12.0, 0.0, 0.0]], requires_grad=True)
    actions, log_probs = SquashedGaussian.of(SQUASHED).sample(parameters, torch.zeros(1, 2))
    assert actions.tolist() == [[1, -1]]
    expected = 2 * (-0.5 * math.log(2 * math.pi) - math.log(4) + 24)
    assert log_probs.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(log_probs, parameters)
    torch.testing.assert_close(gradient, torch.tensor([[2.0, -2.0, -1.0, -1.0]]))


def test_squashed_actions_of_numpy_and_torch_agree() -> None:
    parameters, noise = squashed_parameters(2.0).detach().float(), squashed_parameters().detach()[:, :2].float()
    parameters[0, 2:], parameters[1, 2:] = -30.0, 5.0  # beyond what log σ may be
    actions, log_probs = SquashedGaussian.of(SQUASHED).sample(parameters, noise)
    assert actions.abs().max() <= 1
    twin = actors.gaussians.SquashedGaussian(ActionBounds((-1, -1), (1, 1), True), (2,))
    sampled = twin.sample(parameters.numpy(), noise.numpy())
    np.testing.assert_allclose(sampled, actions, rtol=1e-5, atol=1e-6)
    clear = (actions.abs() < 0.99).all(1) & (parameters[:, 2:] > -3).all(1)  # elsewhere a has too few digits for u
    assert clear.sum() > 10
    np.testing.assert_allclose(
        twin.log_prob(parameters.numpy(), actions.numpy())[clear], log_probs[clear], rtol=1e-3, atol=1e-3
    )
    evaluated, _ = SquashedGaussian.of(SQUASHED).evaluate(parameters, actions)
    np.testing.assert_allclose(twin.log_prob(parameters.numpy(), actions.numpy()), evaluated, rtol=1e-3, atol=1e-3)


def test_one_choice_has_an_entropy_that_can_be_divided_by() -> None:
    assert DISTRIBUTIONS["categorical"].of(make_spec(action=Discrete(1))).max_entropy == 1
    parts = {"a": Discrete(1), "b": Discrete(2), "c": MultiDiscrete((1, 1), (2,)), "d": MultiBinary((2,))}
    joint = DISTRIBUTIONS["joint"].of(make_spec("joint", action=Parts(parts)))
    assert joint.max_entropy == pytest.approx(math.log(8))
    assert DISTRIBUTIONS["joint"].of(make_spec("joint")).max_entropy == 1, "a part is continuous"
