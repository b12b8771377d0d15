"""The policy's network in torch: layers that are normalised, statistics of observations, and weights there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from actors.policy import NORMALIZED_LIMIT
from learner.networks.distributions import DISTRIBUTIONS, EpsilonGreedy
from learner.networks.torch_policy import LayerNorm, TorchPolicy, perceptron
from tests.learner import make_spec


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_layer_norm_is_pytorchs(scale: float) -> None:
    """And so is its gradient, also where the variance is far below ε."""
    torch.manual_seed(0)
    mine, theirs = LayerNorm(6).double(), nn.LayerNorm(6).double()
    with torch.no_grad():
        for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            own.copy_(torch.randn(6))
            other.copy_(own)
    x = (scale * torch.randn(10, 6, dtype=torch.float64) + scale).requires_grad_()
    torch.testing.assert_close(mine(x), theirs(x))
    up = torch.randn(10, 6, dtype=torch.float64)
    gradients = [torch.autograd.grad((up * layer(x)).sum(), [x, *layer.parameters()]) for layer in (mine, theirs)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)


def test_layers_are_normalised_before_their_activation() -> None:
    layers = perceptron((4, 16, 8, 3), "elu", 1.0, layer_norm=True)
    assert [type(layer) for layer in layers] == [*[nn.Linear, LayerNorm, nn.ELU] * 2, nn.Linear]
    hidden = layers[:2](torch.randn(10, 4))
    torch.testing.assert_close(hidden.mean(1), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.square().mean(1), torch.ones(10), atol=1e-3, rtol=0)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("actions", DISTRIBUTIONS)
def test_weights_go_there_and_back(actions: str, layer_norm: bool) -> None:
    spec = make_spec(actions, layer_norm=layer_norm)
    torch.manual_seed(0)
    first, second = TorchPolicy(spec), TorchPolicy(spec)
    for parameter in first.parameters():
        nn.init.normal_(parameter)
    weights = first.policy_weights()
    assert {name: array.shape for name, array in weights.items()} == spec.weight_shapes()
    assert all(array.flags.c_contiguous for array in weights.values())
    second.load_policy_weights(weights)
    for name, array in second.policy_weights().items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    observations = torch.randn(10, 4)
    assert torch.equal(second.parameters_of(observations), first.parameters_of(observations))
    learned = sum(array.size for name, array in weights.items() if name != "epsilon")
    assert first.num_policy_parameters == spec.num_learned == learned


def test_epsilon_is_no_parameter() -> None:
    network = TorchPolicy(make_spec("epsilon_greedy"))
    assert isinstance(network.distribution, EpsilonGreedy)
    assert [*network.distribution.parameters()] == []
    assert "distribution.epsilon" in network.state_dict()


def test_observations_of_a_memory_are_standardised_by_the_statistics_of_today() -> None:
    network = TorchPolicy(make_spec())
    encoded = torch.tensor([[3.0, -4, 1e6, -1e6], [1, 2, 3, 4]])
    assert network.standardised(encoded) is encoded
    mean, std = torch.tensor([1.0, 0, 0, 0]), torch.tensor([2.0, 4, 1, 1])
    network.set_statistics(mean, std)
    expected = torch.tensor([[1, -1, NORMALIZED_LIMIT, -NORMALIZED_LIMIT], [0, 0.5, 3, 4]])
    torch.testing.assert_close(network.standardised(encoded), expected)
    mean.fill_(7.0)  # somebody else's
    torch.testing.assert_close(network.standardised(encoded), expected)
    network.set_statistics(torch.ones(4), torch.full((4,), 0.5))
    torch.testing.assert_close(network.standardised(encoded)[1], torch.tensor([0.0, 2, 4, 6]))


def test_a_small_signal_on_a_large_offset_is_standardised_in_double_precision() -> None:
    network = TorchPolicy(make_spec())
    network.set_statistics(torch.full((4,), 1e9, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
    encoded = torch.full((1, 4), 1e9, dtype=torch.float64) + torch.tensor([0.25, 0.5, -0.5, 0])
    standard = network.standardised(encoded)
    assert standard.dtype == torch.float32
    assert standard.tolist() == [[0.25, 0.5, -0.5, 0]]
