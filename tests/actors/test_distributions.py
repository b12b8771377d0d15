import numpy as np
import pytest
import scipy.special
import scipy.stats

from actors.action_bounds import ActionBounds
from actors.discrete import Bernoulli, Categorical, EpsilonGreedy, MultiCategorical
from actors.distribution import Distribution
from actors.distributions import DISTRIBUTIONS
from actors.episode import Array
from actors.errors import NonFiniteError, UserError
from actors.gaussians import Gaussian, SquashedGaussian, StateDependentGaussian
from actors.joint import Joint
from actors.masks import FORBIDDEN, masked
from actors.parts import Parts
from actors.policy import Policy
from actors.spaces import Box, Discrete, MultiDiscrete
from actors.spec import PolicyNetwork, PolicySpec

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


def squashed(low: tuple[float, ...] = (-1,) * 3, high: tuple[float, ...] = (1,) * 3) -> SquashedGaussian:
    """Between these bounds."""
    return SquashedGaussian(ActionBounds(low, high, True), (len(low),))


ALL: list[Distribution] = [
    Categorical(3),
    EpsilonGreedy(3, 0, 1.0),
    MultiCategorical(MultiDiscrete((1, 2), (2,))),
    Bernoulli((3,)),
    gaussian(0, 0, 0),
    state_dependent(np.zeros((3, 3), np.float32)),
    squashed(),
    Joint(
        Parts({"one": Discrete(2), "way": Box((1,), low=(-np.inf,), high=(np.inf,))}), np.zeros(1, np.float32), False
    ),
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


Q_VALUES = np.array([[2, -3, 5, 1]], np.float32)


def test_without_noise_the_most_valued_action_is_taken() -> None:
    q_values = np.random.default_rng(0).standard_normal((50, 4), np.float32)
    for epsilon in (0.0, 0.5, 1.0):
        np.testing.assert_array_equal(EpsilonGreedy(4, 0, epsilon).sample(q_values, None), q_values.argmax(axis=1))
    greedy = EpsilonGreedy(4, 0, 0.0)
    noise = greedy.noise(np.random.default_rng(1), (50,))
    assert not noise.any()
    np.testing.assert_array_equal(greedy.sample(q_values, noise), q_values.argmax(axis=1))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize(
    ("epsilon", "allows"),
    [(0.3, [1, 1, 1, 1]), (1.0, [1, 1, 1, 1]), (0.3, [1, 1, 0, 1]), (1.0, [1, 0, 1, 0]), (0.05, [1, 1, 1, 1])],
)
def test_others_are_taken_for_a_share_epsilon(epsilon: float, allows: list[int], scale: float) -> None:
    """Each that a mask leaves for ε over their number, however large the values; ``log_prob`` says the same."""
    count, is_allowed = 40_000, np.array(allows, bool)
    distribution, q_values = EpsilonGreedy(4, 0, epsilon), masked(Q_VALUES * np.float32(scale), is_allowed[None])
    noise = distribution.noise(np.random.default_rng(2), (count,))
    actions = distribution.sample(np.tile(q_values, (count, 1)), noise)
    shares = np.where(is_allowed, epsilon / is_allowed.sum(), 0)
    shares[q_values.argmax()] += 1 - epsilon
    observed = np.bincount(actions, minlength=4)
    assert not observed[~is_allowed].any()
    assert scipy.stats.chisquare(observed[is_allowed], count * shares[is_allowed]).pvalue > CERTAINLY_WRONG
    each = np.flatnonzero(is_allowed)
    log_probs = distribution.log_prob(np.tile(q_values, (len(each), 1)), each)
    np.testing.assert_allclose(log_probs, np.log(shares[each]), rtol=1e-5)
    assert log_probs.dtype == np.float32


def test_what_is_forbidden_has_no_probability() -> None:
    q_values = np.array([[1, FORBIDDEN, 3]], np.float32)
    assert EpsilonGreedy(3, 0, 0.3).log_prob(q_values, np.array([1]))[0] < -60


def test_what_is_never_done_has_no_probability() -> None:
    assert EpsilonGreedy(4, 0, 0.0).log_prob(np.tile(Q_VALUES, (2, 1)), np.array([2, 0])).tolist() == [
        0,
        pytest.approx(np.log(1e-30)),
    ]


def test_exploring_is_of_whole_rows_and_independent() -> None:
    noise = EpsilonGreedy(2, 0, 0.25).noise(np.random.default_rng(3), (100, 200))
    explores = (noise != 0).any(axis=2)
    assert ((noise != 0).all(axis=2) == explores).all()
    assert scipy.stats.binomtest(int(explores.sum()), 20_000, 0.25).pvalue > CERTAINLY_WRONG
    both = int((explores[:, 1::2] & explores[:, ::2]).sum())
    assert scipy.stats.binomtest(both, 10_000, 0.25**2).pvalue > CERTAINLY_WRONG


def test_what_is_shown_and_noted_of_values() -> None:
    distribution = EpsilonGreedy(4, 10, 0.5)
    np.testing.assert_array_equal(distribution.shown(Q_VALUES)["q_values"], Q_VALUES)
    assert distribution.notes(Q_VALUES, np.array([0])) == {}
    assert distribution.flyable(np.array([0, 3])).tolist() == [10, 13]
    assert distribution.labels == ["action 10", "action 11", "action 12", "action 13"]


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_an_epsilon_that_is_no_share_is_refused_in_one_line(epsilon: float) -> None:
    with pytest.raises(UserError, match=r"^policy weight epsilon must lie between 0 and 1, not .*$") as error:
        EpsilonGreedy(3, 0, epsilon)
    assert "\n" not in str(error.value)


def test_a_policy_has_its_epsilon_among_its_weights() -> None:
    spec = PolicySpec("X-v0", Box((2,)), Discrete(3, 5), "epsilon_greedy", network=PolicyNetwork(()))
    weights = {"w0": np.eye(2, 3, dtype=np.float32), "b0": np.zeros(3, np.float32)}
    policy = Policy(spec, weights | {"epsilon": np.array([0.75], np.float32)})
    assert isinstance(policy.distribution, EpsilonGreedy)
    assert (policy.distribution.epsilon, policy.distribution.start) == (0.75, 5)
    assert (spec.weight_shapes()["epsilon"], spec.num_learned) == ((1,), 9)
    with pytest.raises(UserError, match="policy weight epsilon must lie between 0 and 1, not 2"):
        Policy(spec, weights | {"epsilon": np.array([2], np.float32)})


def test_squashed_log_prob_is_the_slope_of_the_distribution_function() -> None:
    """P(tanh u < a) = Φ((atanh a − μ) / σ), by differences; of independent components the sum."""
    rng = np.random.default_rng(0)
    means, log_stds = rng.normal(size=(2, 200, 2)), rng.uniform(-1.5, 0.5, size=(2, 200, 2))
    parameters = np.concatenate([means[0], log_stds[0]], axis=1).astype(np.float32)
    distribution = squashed((-1, -1), (1, 1))
    actions = distribution.sample(parameters, distribution.noise(rng, (200,))).clip(-0.999, 0.999)

    def below(a: Array) -> Array:
        return np.asarray(scipy.stats.norm.cdf(np.arctanh(a), means[0], np.exp(log_stds[0])))

    step = 1e-6
    exact = actions.astype(np.float64)
    expected = np.log((below(exact + step) - below(exact - step)) / (2 * step)).sum(axis=1)
    log_probs = distribution.log_prob(parameters, actions)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-3, atol=1e-3)
    assert log_probs.dtype == np.float32


def test_squashed_samples_are_a_normals_tanh() -> None:
    distribution, parameters = (
        squashed((-1, -1), (1, 1)),
        np.tile(np.array([[0.5, -1, 0, -1]], np.float32), (10_000, 1)),
    )
    samples = distribution.sample(parameters, distribution.noise(np.random.default_rng(1), (10_000,)))
    assert np.abs(samples).max() <= 1
    for component, (mean, std) in enumerate([(0.5, 1), (-1, np.exp(-1))]):
        normal = scipy.stats.norm(mean, std)
        assert scipy.stats.kstest(np.arctanh(samples[:, component]), normal.cdf).pvalue > CERTAINLY_WRONG
    np.testing.assert_allclose(distribution.sample(parameters[:1], None), np.tanh([[0.5, -1]]), rtol=1e-6)


def test_squashed_actions_lie_between_their_bounds_and_reach_them() -> None:
    low, high = (-2.0, 0.1, -1e-3), (5.0, 0.3, 7e4)
    distribution = squashed(low, high)
    parameters = np.zeros((1_000, 6), np.float32)
    parameters[:, :3] = np.random.default_rng(2).uniform(-30, 30, size=(1_000, 1))
    for noise in (None, distribution.noise(np.random.default_rng(3), (1_000,))):
        flown = distribution.flyable(distribution.sample(parameters, noise))
        assert flown.dtype == np.float32
        np.testing.assert_array_equal(flown.min(axis=0), np.float32(low))
        np.testing.assert_array_equal(flown.max(axis=0), np.float32(high))
    middle = distribution.shown(np.zeros((1, 6), np.float32))["mean"]
    np.testing.assert_allclose(middle, [np.add(low, high) / 2], rtol=1e-6)
    assert distribution.notes(parameters, distribution.sample(parameters, None)) == {}


def test_the_squashed_log_std_is_kept_in_its_range() -> None:
    distribution, noise = squashed((-1,), (1,)), np.full((4, 1), 0.5, np.float32)
    parameters = np.array([[0, -50], [0, -20], [0, 2], [0, 9]], np.float32)
    samples = distribution.sample(parameters, noise).ravel()
    np.testing.assert_allclose(samples, np.tanh(0.5 * np.exp([-20, -20, 2, 2])), rtol=1e-6)
    log_probs = distribution.log_prob(parameters, np.zeros((4, 1), np.float32))
    np.testing.assert_allclose(log_probs, -np.array([-20, -20, 2, 2]) - 0.5 * np.log(2 * np.pi), rtol=1e-6)


def test_a_squashed_action_at_a_bound_has_a_finite_probability() -> None:
    log_probs = squashed((-1,), (1,)).log_prob(np.zeros((2, 2), np.float32), np.array([[1], [-1]], np.float32))
    assert np.isfinite(log_probs).all()
    assert log_probs[0] == pytest.approx(log_probs[1])


@pytest.mark.parametrize(("low", "high"), [((-1, -np.inf), (1, 1)), ((-1, -1), (1, np.inf))])
def test_squashed_actions_need_all_bounds(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    spec = PolicySpec("X-v0", Box((2,)), Box((2,), low=low, high=high), "squashed_gaussian", network=PolicyNetwork(()))
    weights = {"w0": np.zeros((2, 4), np.float32), "b0": np.zeros(4, np.float32)}
    with pytest.raises(UserError, match=r"^squashed actions lie between bounds, and a component of these lacks one$"):
        Policy(spec, weights)


@EACH
def test_a_row_of_zeros_for_noise_takes_the_most_likely_action(distribution: Distribution) -> None:
    rng = np.random.default_rng(6)
    width = 6 if isinstance(distribution, SquashedGaussian) else 3
    parameters = distribution.complete(*rng.standard_normal((2, 50, width), np.float32)[..., :width])
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
