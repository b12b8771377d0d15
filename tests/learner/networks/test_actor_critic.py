"""The torch networks: how they start, and what they say of actions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal

from actors.errors import UserError
from actors.layers import ACTIVATIONS
from actors.policy import Policy
from learner.networks.actor_critic import ActorCritic
from learner.networks.config import Critic
from learner.networks.distributions import DISTRIBUTIONS, EpsilonGreedy
from learner.networks.torch_policy import LayerNorm, perceptron
from tests.learner import make_spec


def linears(network: nn.Module | None) -> list[nn.Linear]:
    assert network is not None
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def assert_orthogonal(weight: torch.Tensor, gain: float) -> None:
    """Rows or columns, whichever are fewer, are orthogonal and of length ``gain``."""
    w = weight if weight.shape[0] <= weight.shape[1] else weight.T
    torch.testing.assert_close(w @ w.T, gain**2 * torch.eye(len(w)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("last_gain", [0.01, 1.0])
def test_layers_start_orthogonal_and_unbiased(last_gain: float) -> None:
    layers = linears(perceptron((4, 16, 8, 3), "tanh", last_gain))
    assert [layer.weight.shape for layer in layers] == [(16, 4), (8, 16), (3, 8)]
    for layer, gain in zip(layers, (math.sqrt(2), math.sqrt(2), last_gain), strict=True):
        assert_orthogonal(layer.weight.detach(), gain)
        assert not layer.bias.any()


def test_the_policy_starts_near_uniform_and_the_critic_does_not() -> None:
    network = ActorCritic(make_spec(), has_critic=True)
    assert_orthogonal(linears(network.actor)[-1].weight.detach(), 0.01)
    assert_orthogonal(linears(network.critic)[-1].weight.detach(), 1.0)
    outputs = network(torch.randn(50, 4), torch.zeros(50, dtype=torch.int64))
    torch.testing.assert_close(outputs.log_probs, torch.full((50,), -math.log(3)), atol=0.05, rtol=0)
    assert outputs.values.abs().max() > 0.1


def test_critic_sizes() -> None:
    def sizes(critic_sizes: tuple[int, ...] | None) -> list[tuple[int, ...]]:
        network = ActorCritic(make_spec(hidden_sizes=(8,)), has_critic=True, critic=Critic(critic_sizes))
        return [tuple(layer.weight.shape) for layer in linears(network.critic)]

    assert sizes(None) == [(8, 4), (1, 8)]
    assert sizes((32, 16)) == [(32, 4), (16, 32), (1, 16)]
    assert sizes(()) == [(1, 4)]


def test_the_critics_hidden_layers_are_normalised_too() -> None:
    network = ActorCritic(make_spec(layer_norm=True), has_critic=True, critic=Critic((16,)))
    for layers, units in ((network.actor, [8, 8]), (network.critic, [16])):
        assert layers is not None
        assert [len(layer.scale) for layer in layers.modules() if isinstance(layer, LayerNorm)] == units
        assert isinstance(layers[-1], nn.Linear)


def test_without_a_critic_values_are_zero() -> None:
    network = ActorCritic(make_spec(), has_critic=False)
    assert not any(name.startswith("critic") for name, _ in network.named_parameters())
    assert network.value(torch.randn(5, 4)).tolist() == [0] * 5


def test_categorical_is_torchs() -> None:
    torch.manual_seed(0)
    network = ActorCritic(make_spec(), has_critic=True)
    nn.init.normal_(linears(network.actor)[-1].weight)  # far from uniform
    observations, actions = torch.randn(20, 4), torch.randint(3, (20,))
    outputs, expected = network(observations, actions), Categorical(logits=network.actor(observations))
    torch.testing.assert_close(outputs.log_probs, expected.log_prob(actions))
    torch.testing.assert_close(outputs.entropies, expected.entropy())
    torch.testing.assert_close(outputs.values, network.value(observations))


def test_gaussian_is_torchs() -> None:
    torch.manual_seed(0)
    network = ActorCritic(make_spec("gaussian"), has_critic=True)
    nn.init.normal_(linears(network.actor)[-1].weight)
    log_std = torch.tensor([-0.7, 0.4])
    network.distribution.log_std.data = log_std
    observations, actions = torch.randn(20, 4), torch.randn(20, 2)
    outputs = network(observations, actions)
    expected = Independent(Normal(network.actor(observations), log_std.exp()), 1)
    torch.testing.assert_close(outputs.log_probs, expected.log_prob(actions))
    torch.testing.assert_close(outputs.entropies, expected.entropy())


def test_a_state_dependent_gaussian_is_torchs_and_leaves_the_layers_before_it_alone() -> None:
    torch.manual_seed(0)
    network = ActorCritic(make_spec("state_dependent_gaussian"), has_critic=True)
    log_std = network.distribution.log_std
    nn.init.normal_(log_std)
    observations, actions = torch.randn(20, 4), torch.randn(20, 2)
    outputs = network(observations, actions)
    hidden = network.actor[:-1](observations)
    stds = torch.sqrt(hidden.square() @ log_std.exp().square() + 1e-6)
    expected = Independent(Normal(network.actor(observations), stds), 1)
    torch.testing.assert_close(outputs.log_probs, expected.log_prob(actions))
    torch.testing.assert_close(outputs.entropies, expected.entropy())
    outputs.entropies.sum().backward()
    assert (log_std.grad != 0).all()
    assert all((layer.weight.grad == 0).all() for layer in linears(network.actor))


def test_weights_of_another_distribution_are_refused_in_one_line() -> None:
    other = ActorCritic(make_spec("state_dependent_gaussian"), has_critic=False).policy_weights()
    with pytest.raises(
        UserError, match=r"another distribution over actions: its log_std is \(8, 2\), the run's \(2,\)"
    ):
        ActorCritic(make_spec("gaussian"), has_critic=False).load_policy_weights(other)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("actions", DISTRIBUTIONS)
def test_the_numpy_policy_is_the_torch_network(actions: str, activation: str, layer_norm: bool) -> None:
    torch.manual_seed(0)
    spec = make_spec(actions, activation=activation, layer_norm=layer_norm)
    network = ActorCritic(spec, has_critic=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)  # biases and log σ too
    if isinstance(network.distribution, EpsilonGreedy):
        network.distribution.epsilon.fill_(0.3)
    policy = Policy(spec, network.policy_weights())
    observations = np.random.default_rng(0).standard_normal((30, 4), dtype=np.float32)
    parameters = policy.forward(observations)
    taken = policy.distribution.sample(parameters, policy.distribution.noise(np.random.default_rng(1), (30,)))
    with torch.no_grad():
        torch.testing.assert_close(network.parameters_of(torch.from_numpy(observations)), torch.from_numpy(parameters))
        log_probs = network(torch.from_numpy(observations), torch.from_numpy(taken)).log_probs
    np.testing.assert_allclose(policy.distribution.log_prob(parameters, taken), log_probs, rtol=1e-4, atol=1e-5)


def test_weights_given_away_are_copies() -> None:
    network = ActorCritic(make_spec("gaussian"), has_critic=False)
    weights = network.policy_weights()
    before = {name: array.copy() for name, array in weights.items()}
    for parameter in network.parameters():
        parameter.data += 1
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])
