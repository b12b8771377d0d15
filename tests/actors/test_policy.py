"""A policy acts the same in numpy as in torch; weights and specs of which none can be made are refused."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from actors.discrete import Categorical
from actors.distributions import DISTRIBUTIONS
from actors.episode import Array
from actors.errors import NonFiniteError, UserError
from actors.layers import ACTIVATIONS
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spaces import Box, Discrete
from actors.spec import PolicyNetwork, PolicySpec
from learner.networks.actor_critic import ActorCritic
from tests.actors.examples import random_policy, reshaped
from tests.actors.specs import CATEGORICAL, DEEP, EPSILON_GREEDY, GAUSSIAN, SPECS, STATE_DEPENDENT, observations


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spec", [CATEGORICAL, GAUSSIAN], ids=["categorical", "gaussian"])
def test_numpy_and_torch_networks_agree(spec: PolicySpec, activation: str, layer_norm: bool) -> None:
    torch.manual_seed(8)
    spec = reshaped(spec, activation=activation, layer_norm=layer_norm)
    network = ActorCritic(spec, has_critic=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))  # away from zero biases and near-zero outputs
        o = observations(spec)
        expected = network.actor(torch.from_numpy(o).flatten(1)).numpy()
    policy = Policy(spec, network.policy_weights())
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(policy.forward(o), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", [SPECS[name] for name in DISTRIBUTIONS], ids=[*DISTRIBUTIONS])
def test_numpy_and_torch_log_probs_agree(spec: PolicySpec) -> None:
    torch.manual_seed(9)
    network = ActorCritic(spec, has_critic=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        if spec is EPSILON_GREEDY:
            network.distribution.epsilon.fill_(0.3)
    policy = Policy(spec, network.policy_weights())
    o = observations(spec)
    parameters = policy.forward(o)
    actions = policy.distribution.sample(parameters, policy.distribution.noise(np.random.default_rng(0), (50,)))
    with torch.no_grad():
        features = torch.from_numpy(spec.observation.encode(o))
        expected = network(features, torch.from_numpy(actions)).log_probs.numpy()
    np.testing.assert_allclose(policy.distribution.log_prob(parameters, actions), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4], ids=["small sums", "sums", "large sums"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layer_norm_is_pytorchs(activation: str, scale: float) -> None:
    """Of each hidden layer's sums and of no other; before the activation; with PyTorch's ε where sums are small."""
    policy = random_policy(reshaped(CATEGORICAL, layer_norm=True, activation=activation))
    policy.weights["b0"] *= np.float32(scale)
    weights = {name: torch.from_numpy(array) for name, array in policy.weights.items()}
    activate = {"tanh": torch.tanh, "relu": torch.relu, "elu": torch.nn.functional.elu}[activation]
    o = np.float32(scale) * observations(CATEGORICAL)
    x = torch.from_numpy(o)
    for i, units in enumerate(DEEP.hidden_sizes):
        x = x @ weights[f"w{i}"] + weights[f"b{i}"]
        x = activate(torch.nn.functional.layer_norm(x, (units,), weights[f"scale{i}"], weights[f"shift{i}"]))
    expected = x @ weights["w2"] + weights["b2"]
    np.testing.assert_allclose(policy.forward(o), expected, rtol=1e-4, atol=1e-4)


def test_layer_norm_adds_a_scale_and_a_shift_to_each_hidden_layer() -> None:
    shapes = reshaped(CATEGORICAL, layer_norm=True).weight_shapes()
    assert shapes == CATEGORICAL.weight_shapes() | {
        **{"scale0": (16,), "shift0": (16,), "scale1": (8,), "shift1": (8,)},
    }
    assert reshaped(CATEGORICAL, layer_norm=True).num_learned == CATEGORICAL.num_learned + 48
    with pytest.raises(UserError, match=r"weights do not fit the policy: scale0 is missing, \(16,\) is needed"):
        Policy(reshaped(CATEGORICAL, layer_norm=True), random_policy(CATEGORICAL).weights)


def test_observations_are_standardised_and_clipped() -> None:
    spec = PolicySpec(
        "X-v0", Box((3,)), Discrete(3), "categorical", network=PolicyNetwork((), normalize_observations=True)
    )
    weights = {
        "w0": np.eye(3, dtype=np.float32),
        "b0": np.zeros(3, np.float32),
        "observation_mean": np.array([1, 0, 0], np.float32),
        "observation_std": np.array([2, 1, 1], np.float32),
    }
    outputs = Policy(spec, weights).forward(np.array([[5, 1e6, -1e6]], np.float32))
    np.testing.assert_array_equal(outputs, [[2, NORMALIZED_LIMIT, -NORMALIZED_LIMIT]])


def test_continuous_actions_are_clipped_and_shaped() -> None:
    policy = random_policy(GAUSSIAN)
    policy.weights["log_std"][:] = 2
    o = observations(GAUSSIAN, 500)
    for actions in (policy.act(o), policy.act(o, np.random.default_rng(0))):
        assert actions.shape == (500, 2, 2)
        assert actions.dtype == np.float32
        flat = actions.reshape(500, 4)
        np.testing.assert_array_equal(flat.min(axis=0), -1)
        np.testing.assert_array_equal(flat.max(axis=0)[:3], [1, 1, 0.5])
        assert flat[:, 3].max() > 1  # its upper bound is infinite


def test_greedy_actions_are_the_modes() -> None:
    policy = random_policy(CATEGORICAL)
    o = observations(CATEGORICAL)
    np.testing.assert_array_equal(policy.act(o), policy.forward(o).argmax(axis=1))


def test_sampled_actions_follow_the_probabilities() -> None:
    policy = random_policy(CATEGORICAL)
    o = np.tile(observations(CATEGORICAL, 1) / 10, (20_000, 1))
    assert isinstance(policy.distribution, Categorical)
    probability = policy.distribution.probabilities(policy.forward(o[:1]))[0, 1]
    assert 0.05 < probability < 0.95
    deviation = np.sqrt(probability * (1 - probability) / len(o))
    assert abs(policy.act(o, np.random.default_rng(0)).mean() - probability) < 5 * deviation


@pytest.mark.parametrize(
    "change",
    [
        {"w0": np.zeros((4, 15), np.float32)},
        {"b1": np.zeros((8, 1), np.float32)},
        {"log_std": np.zeros(2, np.float32)},
    ],
    ids=["misshapen", "too many dimensions", "unexpected"],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, Array]) -> None:
    weights = random_policy(CATEGORICAL).weights | change
    with pytest.raises(UserError, match="weights do not fit"):
        Policy(CATEGORICAL, weights)


def test_statistics_have_the_observations_dtype() -> None:
    spec = SPECS["normalised in float64"]
    weights = random_policy(spec).weights
    with pytest.raises(UserError, match="policy weight observation_mean is float32, not float64"):
        Policy(spec, weights | {"observation_mean": weights["observation_mean"].astype(np.float32)})
    with pytest.raises(UserError, match="policy weight observation_mean is float64, not float32"):
        Policy(dataclasses.replace(spec, observation=Box((2, 3))), weights)
    with pytest.raises(UserError, match="observations of float64 are of policies that normalise them"):
        reshaped(spec, normalize_observations=False)
    with pytest.raises(UserError, match="unknown dtype 'float16'"):
        Box((2, 3), "float16")  # type: ignore[arg-type]


def test_a_missing_weight_is_refused() -> None:
    weights = random_policy(CATEGORICAL).weights
    del weights["b0"]
    with pytest.raises(UserError, match="weights do not fit"):
        Policy(CATEGORICAL, weights)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused_by_name(value: float) -> None:
    weights = random_policy(CATEGORICAL).weights
    weights["w1"][0, 0] = value
    with pytest.raises(NonFiniteError, match="w1"):
        Policy(CATEGORICAL, weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolicyNetwork(activation="tahn"), "did you mean tanh"),
        (lambda: PolicyNetwork((8, 0)), "sizes must be positive"),
        (lambda: dataclasses.replace(GAUSSIAN, distribution="gausian"), "did you mean gaussian"),
        (lambda: dataclasses.replace(GAUSSIAN, distribution="bernoulli"), "not over actions of kind box"),
        (lambda: dataclasses.replace(GAUSSIAN, action=Box((2, 2))), "low and high are missing"),
        (lambda: reshaped(STATE_DEPENDENT, hidden_sizes=()), "last hidden layer; this one has none"),
    ],
)
def test_impossible_specs_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_network_that_no_file_holds_is_refused() -> None:
    with pytest.raises(UserError, match=r"1000000000 × 16 × 8 × 2 units would take 61,\d+ MiB, more than 256"):
        dataclasses.replace(CATEGORICAL, observation=Discrete(10**9))
