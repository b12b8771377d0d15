"""Action values by hand, their target, and the policy that they are folded into."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors.masks import FORBIDDEN
from actors.policy import Policy
from actors.spaces import Box, Discrete
from actors.spec import PolicySpec
from learner.networks.q_network import QNetwork
from learner.networks.torch_policy import LayerNorm
from tests.learner import make_spec

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

KINDS = list(itertools.product([False, True], [1, 5], [False, True]))
EVERY_KIND = pytest.mark.parametrize(
    ("dueling", "n_quantiles", "layer_norm"),
    KINDS,
    ids=[
        f"{'dueling' if dueling else 'plain'}-{quantiles}-{'layer norm' if norm else 'none'}"
        for dueling, quantiles, norm in KINDS
    ],
)


def spec_of(**network: object) -> PolicySpec:
    return make_spec("epsilon_greedy", **network)


def random_network(spec: PolicySpec, dueling: bool, n_quantiles: int, seed: int = 0) -> QNetwork:
    """All weights at random, biases too, and the target's others than the learned."""
    torch.manual_seed(seed)
    network = QNetwork(spec, dueling, n_quantiles)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return network


def observations(count: int = 20) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def test_dueling_by_hand() -> None:
    spec = make_spec("epsilon_greedy", Box((2,)), Discrete(3), hidden_sizes=())
    network = QNetwork(spec, dueling=True, n_quantiles=2)
    assert network.online.value is not None
    with torch.no_grad():
        # Rows are a₀ of both quantiles, a₁ of both, a₂ of both; for observation (1, 2):
        network.online.last.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [2, 1], [1, 1], [0, 0], [0, 2]]))
        network.online.last.bias.copy_(torch.tensor([0.0, 0, 1, 0, 1, 1]))
        network.online.value.weight.copy_(torch.tensor([[1.0, 1], [2, 0]]))
        network.online.value.bias.copy_(torch.tensor([0.0, 5]))
    # a = (1, 2), (5, 3), (1, 5), of means 7/3 and 10/3; v = 3, 7
    expected = torch.tensor([[[1.0, 2], [5, 3], [1, 5]]]) + torch.tensor([3 - 7 / 3, 7 - 10 / 3])
    torch.testing.assert_close(network.quantiles(torch.tensor([[1.0, 2]])), expected)
    torch.testing.assert_close(network.q_values(torch.tensor([[1.0, 2]])), expected.mean(2))


def test_without_dueling_there_is_one_stream() -> None:
    network = random_network(spec_of(), dueling=False, n_quantiles=5)
    torch.testing.assert_close(network.quantiles(observations()).flatten(1), network.actor(observations()))


@EVERY_KIND
def test_the_policy_has_the_q_values(dueling: bool, n_quantiles: int, layer_norm: bool) -> None:
    spec = spec_of(layer_norm=layer_norm)
    network = random_network(spec, dueling, n_quantiles)
    weights = network.policy_weights()
    assert {name: array.shape for name, array in weights.items()} == spec.weight_shapes()
    q_values = network.q_values(observations()).detach().numpy()
    assert np.ptp(q_values, axis=0).min() > 0.1
    np.testing.assert_allclose(Policy(spec, weights).forward(observations().numpy()), q_values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dueling", [False, True])
def test_so_has_a_policy_of_one_layer(dueling: bool) -> None:
    spec = spec_of(hidden_sizes=())
    network = random_network(spec, dueling, 3)
    policy = Policy(spec, network.policy_weights())
    q_values = network.q_values(observations()).detach().numpy()
    np.testing.assert_allclose(policy.forward(observations().numpy()), q_values, rtol=1e-4, atol=1e-5)


@EVERY_KIND
def test_a_policys_weights_come_back(dueling: bool, n_quantiles: int, layer_norm: bool) -> None:
    """Its q-values are those of every quantile, and of the target."""
    spec = spec_of(layer_norm=layer_norm)
    weights = random_network(spec, dueling, n_quantiles).policy_weights()
    other = random_network(spec, dueling, n_quantiles, seed=1)
    other.load_policy_weights(weights)
    for name, array in other.policy_weights().items():
        np.testing.assert_allclose(array, weights[name], rtol=1e-5, atol=1e-6, err_msg=name)
    q_values = torch.from_numpy(Policy(spec, weights).forward(observations().numpy()))
    for of_target in (False, True):
        quantiles = other.quantiles(observations(), of_target)
        torch.testing.assert_close(quantiles, q_values[..., None].expand_as(quantiles), rtol=1e-4, atol=1e-5)


def test_epsilon_travels_with_the_policy() -> None:
    network = QNetwork(spec_of())
    network.distribution.epsilon.fill_(0.25)
    assert network.policy_weights()["epsilon"].tolist() == [0.25]


def test_what_a_mask_forbids_is_valued_least() -> None:
    network = random_network(spec_of(), dueling=True, n_quantiles=5)
    allows = torch.rand(20, 3, generator=torch.Generator().manual_seed(2)) < 0.5
    for of_target in (False, True):
        free = network.q_values(observations(), of_target=of_target)
        bound = network.q_values(observations(), allows, of_target)
        torch.testing.assert_close(bound[allows], free[allows], rtol=0, atol=0)
        assert (bound[~allows] == FORBIDDEN).all()


@pytest.mark.parametrize("dueling", [False, True])
def test_the_target_is_no_part_of_what_is_learned(dueling: bool) -> None:
    network = QNetwork(spec_of(layer_norm=True), dueling, 5)
    learned = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("target") for name in learned)
    assert sum(parameter.numel() for parameter in network.online.parameters()) == network.num_policy_parameters
    assert {id(own) for own in network.online.parameters()} == {
        id(own) for name, own in network.named_parameters() if name in learned
    }
    before = network.q_values(observations(), of_target=True)
    torch.testing.assert_close(before, network.q_values(observations()), rtol=0, atol=0)
    with torch.no_grad():
        for parameter in network.online.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(network.q_values(observations(), of_target=True), before, rtol=0, atol=0)
    assert (network.q_values(observations()) != before).any()


@pytest.mark.parametrize("tau", [0.0, 0.25, 0.7, 1.0])
def test_the_target_follows_by_a_share(tau: float) -> None:
    network = random_network(spec_of(), dueling=True, n_quantiles=1)
    online = [parameter.detach().clone() for parameter in network.online.parameters()]
    target = copy.deepcopy([*network.target.parameters()])
    assert all((own != other).any() for own, other in zip(online, target, strict=True))
    with torch.no_grad():
        network.follow(tau)
    for after, own, before in zip(network.target.parameters(), online, target, strict=True):
        torch.testing.assert_close(after.data, (1 - tau) * before + tau * own, rtol=1e-6, atol=1e-6)
        assert not after.requires_grad
        if tau == 1:
            assert torch.equal(after, own)
    assert all(torch.equal(own, after) for own, after in zip(online, network.online.parameters(), strict=True))


def test_without_a_target_the_learned_network_is_asked() -> None:
    network = QNetwork(spec_of(), has_target=False)
    assert network.target is network.online
    weights = random_network(spec_of(), False, 1).policy_weights()
    network.load_policy_weights(weights)
    assert all(parameter.requires_grad for parameter in network.parameters())
    np.testing.assert_array_equal(network.policy_weights()["w2"], weights["w2"])


def test_values_start_at_the_order_of_one() -> None:
    network = QNetwork(spec_of(layer_norm=True), dueling=True)
    assert network.online.value is not None
    for layer in (network.online.last, network.online.value):
        torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(layer.out_features), atol=1e-5, rtol=0)
        assert not layer.bias.any()
    norms = [layer for layer in network.online.trunk if isinstance(layer, LayerNorm)]
    assert [type(layer) for layer in network.online.trunk] == [nn.Linear, LayerNorm, nn.Tanh] * 2
    assert all((norm.scale == 1).all() and (norm.shift == 0).all() for norm in norms)
