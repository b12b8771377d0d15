import numpy as np
import pytest
import scipy.special
import scipy.stats

from actors.action_bounds import ActionBounds
from actors.distribution import Distribution
from actors.distributions import DISTRIBUTIONS, Bernoulli, Categorical, MultiCategorical
from actors.episode import Array
from actors.errors import NonFiniteError
from actors.gaussians import Gaussian, StateDependentGaussian
from actors.spaces import MultiDiscrete

CERTAINLY_WRONG = 1e-6
"""A p-value that a right sampler falls below once in a million seeds."""


def gaussian(*log_std: float) -> Gaussian:
    """Of as many components, without bounds."""
    size = len(log_std)
    return Gaussian(np.array(log_std, np.float32), ActionBounds((-np.inf,) * size, (np.inf,) * size, False), (size,))


def state_dependent(log_std: Array) -> StateDependentGaussian:
    """Of [H, A], without bounds."""
    size = log_std.shape[1]
    return StateDependentGaussian(log_std, ActionBounds((-np.inf,) * size, (np.inf,) * size, False), (size,))


ALL: list[Distribution] = [
    Categorical(3),
    MultiCategorical(MultiDiscrete((1, 2), (2,))),
    Bernoulli((3,)),
    gaussian(0, 0, 0),
    state_dependent(np.zeros((3, 3), np.float32)),
]
EACH = pytest.mark.parametrize("distribution", ALL, ids=[*DISTRIBUTIONS])


def test_categorical_log_prob_is_the_logarithm_of_the_softmax() -> None:
    logits = np.log(np.array([[1, 2, 5], [1, 1, 2]], np.float32)) + np.array([[3], [-7]], np.float32)
    log_probs = Categorical(3).log_prob(logits, np.array([2, 0]))
    np.testing.assert_allclose(log_probs, np.log([5 / 8, 1 / 4]), rtol=1e-5)
    assert log_probs.dtype == np.float32


def test_categorical_probabilities_are_the_softmax() -> None:
    logits = np.log(np.array([[1, 2, 5]], np.float32)) + 4
    np.testing.assert_allclose(Categorical(3).probabilities(logits), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-5)


def test_categorical_survives_logits_that_overflow_an_exponential() -> None:
    logits = np.array([[1e4, -1e4, 0]], np.float32)
    np.testing.assert_array_equal(Categorical(3).log_prob(logits, np.array([0])), [0])
    np.testing.assert_array_equal(Categorical(3).log_prob(logits, np.array([1])), [-2e4])
    np.testing.assert_array_equal(Categorical(3).probabilities(logits), [[1, 0, 0]])


def test_categorical_samples_as_often_as_it_should() -> None:
    probabilities, count = np.array([0.5, 0.3, 0.15, 0.05]), 40_000
    distribution = Categorical(4)
    noise = distribution.noise(np.random.default_rng(1), (count,))
    samples = distribution.sample(np.tile(np.log(probabilities).astype(np.float32), (count, 1)), noise)
    observed = np.bincount(samples, minlength=4)
    assert scipy.stats.chisquare(observed, count * probabilities).pvalue > CERTAINLY_WRONG


def test_categorical_mode_is_the_largest_logit() -> None:
    logits = np.array([[0, 3, 1], [5, 3, 1]], np.float32)
    np.testing.assert_array_equal(Categorical(3).sample(logits, None), [1, 0])


def test_categorical_noise_is_gumbel() -> None:
    noise = Categorical(2).noise(np.random.default_rng(2), (5_000,))
    assert scipy.stats.kstest(noise.ravel(), scipy.stats.gumbel_r.cdf).pvalue > CERTAINLY_WRONG


def test_choices_are_independent_categoricals() -> None:
    space = MultiDiscrete((3, 2), (1, 2), (0, 5))
    choices = MultiCategorical(space)
    logits = np.random.default_rng(3).standard_normal((40_000, 5), np.float32)
    first, second = Categorical(3), Categorical(2)
    sampled = choices.sample(logits, choices.noise(np.random.default_rng(4), (len(logits),)))
    expected = first.log_prob(logits[:, :3], sampled[:, 0]) + second.log_prob(logits[:, 3:], sampled[:, 1])
    np.testing.assert_allclose(choices.log_prob(logits, sampled), expected, rtol=1e-6)
    shown = np.hstack([first.probabilities(logits[:, :3]), second.probabilities(logits[:, 3:])])
    np.testing.assert_allclose(choices.shown(logits)["probabilities"], shown, atol=1e-6)
    flown = choices.flyable(sampled)
    assert flown.shape == (len(logits), 1, 2)
    np.testing.assert_array_equal(flown[:, 0], sampled + np.array([0, 5]))


def test_choices_and_switches_fall_as_often_as_they_should() -> None:
    logits, count = np.log(np.array([0.2, 0.3, 0.5, 0.9, 0.1], np.float32)), 40_000
    choices = MultiCategorical(MultiDiscrete((3, 2), (2,)))
    sampled = choices.sample(np.tile(logits, (count, 1)), choices.noise(np.random.default_rng(5), (count,)))
    together = np.bincount(2 * sampled[:, 0] + sampled[:, 1], minlength=6)
    expected = count * np.outer([0.2, 0.3, 0.5], [0.9, 0.1]).ravel()
    assert scipy.stats.chisquare(together, expected).pvalue > CERTAINLY_WRONG

    odds, switches = np.array([0.2, 0.7], np.float32), Bernoulli((2,))
    log_odds = np.tile(np.log(odds / (1 - odds)), (count, 1))
    ones = switches.sample(log_odds, switches.noise(np.random.default_rng(6), (count,)))
    together = np.bincount(2 * ones[:, 0] + ones[:, 1], minlength=4)
    assert scipy.stats.chisquare(together, count * np.outer([0.8, 0.2], [0.3, 0.7]).ravel()).pvalue > CERTAINLY_WRONG


def test_switches_log_prob_is_the_bernoulli_mass() -> None:
    log_odds = np.array([[0.5, -2, 90], [0, 3, -90]], np.float32)
    taken = np.array([[1, 0, 1], [0, 1, 0]], np.int8)
    probability = scipy.special.expit(log_odds.astype(np.float64))
    expected = scipy.stats.bernoulli.logpmf(taken, probability).sum(axis=1)
    log_probs = Bernoulli((3,)).log_prob(log_odds, taken)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(Bernoulli((3,)).shown(log_odds)["probabilities"], probability, atol=1e-7)


def test_gaussian_log_prob_is_the_normal_density() -> None:
    rng = np.random.default_rng(3)
    means, actions = rng.standard_normal((2, 5, 3)).astype(np.float32)
    log_std = np.array([-1, 0, 0.5], np.float32)
    expected = scipy.stats.norm.logpdf(actions, means, np.exp(log_std)).sum(axis=1)
    log_probs = gaussian(*log_std).log_prob(means, actions)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)
    assert log_probs.dtype == np.float32


def test_gaussian_samples_are_normal_around_the_mean() -> None:
    distribution = gaussian(*np.log([0.1, 2]))
    noise = distribution.noise(np.random.default_rng(4), (10_000,))
    samples = distribution.sample(np.tile(np.array([5, -3], np.float32), (10_000, 1)), noise)
    for component, (mean, std) in enumerate([(5, 0.1), (-3, 2)]):
        assert scipy.stats.kstest(samples[:, component], scipy.stats.norm(mean, std).cdf).pvalue > CERTAINLY_WRONG


def test_gaussian_mode_is_the_mean() -> None:
    means = np.array([[1, 2]], np.float32)
    np.testing.assert_array_equal(gaussian(0, 0).sample(means, None), means)


def test_noise_on_the_last_hidden_layer_is_normal_around_the_mean() -> None:
    """As gSDE has it: h of a state times a matrix of normal numbers, each with its own σ, beside the sampled action."""
    rng = np.random.default_rng(7)
    log_std = rng.standard_normal((4, 2), np.float32)
    means, hidden = np.array([[5, -3]], np.float32), rng.standard_normal((1, 4), np.float32)
    distribution = state_dependent(log_std)
    parameters = distribution.complete(means, hidden)
    noises = rng.standard_normal((20_000, 4, 2)) * np.exp(log_std)
    many = np.tile(parameters, (20_000, 1))
    samples = distribution.sample(many, distribution.noise(rng, (len(many),)))
    by_matrices = means + np.einsum("h,nha->na", hidden[0], noises)
    for component in range(2):
        both = scipy.stats.ks_2samp(samples[:, component], by_matrices[:, component])
        assert both.pvalue > CERTAINLY_WRONG
    stds = np.sqrt(np.square(hidden) @ np.exp(log_std) ** 2 + 1e-6)
    expected = scipy.stats.norm.logpdf(samples, means, stds).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(many, samples), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(distribution.sample(parameters, None), means)
    shown = distribution.shown(parameters)
    np.testing.assert_array_equal(shown["mean"], means)
    np.testing.assert_allclose(shown["std"], stds, rtol=1e-6)
    assert distribution.shown_once == {}


def test_a_variance_that_single_precision_cannot_hold_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="log_std is of an infinite variance"):
        state_dependent(np.full((2, 1), 50, np.float32))


@EACH
def test_a_row_of_zeros_for_noise_takes_the_most_likely_action(distribution: Distribution) -> None:
    rng = np.random.default_rng(6)
    parameters = distribution.complete(*rng.standard_normal((2, 50, 3), np.float32))
    noise = distribution.noise(rng, (50,))
    noise[::2] = 0
    sampled, likely = distribution.sample(parameters, noise), distribution.sample(parameters, None)
    np.testing.assert_array_equal(sampled[::2], likely[::2])
    assert (sampled[1::2] != likely[1::2]).any()


@EACH
def test_noise_is_repeatable_and_single_precision(distribution: Distribution) -> None:
    def draw(seed: int) -> Array:
        return distribution.noise(np.random.default_rng(seed), (4, 5))

    assert draw(0).shape == (4, 5, 3)
    assert draw(0).dtype == np.float32
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).all()
