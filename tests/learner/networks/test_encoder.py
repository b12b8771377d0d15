"""What is learned of pictures is what acts: torch's trunks against ONNX Runtime's, and their gradients."""

from typing import Any

import numpy as np
import pytest
import torch

from actors.parts import Parts
from actors.pictures import Picture, pictures_in
from actors.policy import Policy
from actors.spaces import Box, Discrete, Space
from actors.trunks import TRUNKS
from learner.memory.packing import as_learned
from learner.networks.actor_critic import ActorCritic
from learner.networks.config import Critic
from learner.networks.q_network import QNetwork
from learner.run.learner import Learner
from tests.actors.examples import random_policy
from tests.learner import make_batch, make_spec
from tests.learner.learners import make_learner

STACK = Picture((4, 36, 40), 4)
PARTS = Parts(
    {
        **{"eye": Picture((20, 24, 3)), "speed": Box((2,)), "gear": Discrete(3)},
        "deep": Parts({"map": Picture((2, 18, 18), 2), "film": Picture((3, 17, 16, 3), 3)}),
    }
)
TINY = "4x4/2 6x3"


def shaken(network: Any) -> Any:
    """The network with weights that no initialisation would give."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_the_network_that_learns_is_the_one_that_acts(trunk: str) -> None:
    spec = make_spec(observation=STACK, trunk=trunk)
    network = shaken(ActorCritic(spec, has_critic=True, critic=Critic(shares=True)))
    values = STACK.sample(np.random.default_rng(0), 600)  # more than are looked at together
    with torch.no_grad():
        learned = network.parameters_of(torch.from_numpy(STACK.encode(values))).numpy()
    acts = Policy(spec, network.policy_weights()).forward(values)
    np.testing.assert_allclose(learned, acts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trunk", ["", TINY])
def test_pictures_among_parts_are_seen_where_their_numbers_are(trunk: str) -> None:
    spec = make_spec(observation=PARTS, trunk=trunk)
    network = shaken(ActorCritic(spec, has_critic=False))
    values = PARTS.sample(np.random.default_rng(0), 5)
    with torch.no_grad():
        learned = network.parameters_of(torch.from_numpy(as_learned(PARTS, values))).numpy()
    np.testing.assert_allclose(learned, Policy(spec, network.policy_weights()).forward(values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", [STACK, PARTS], ids=["picture", "parts"])
def test_weights_are_taken_over(space: Space) -> None:
    policy = random_policy(make_spec(observation=space, trunk=TINY))
    for network in (
        ActorCritic(policy.spec, has_critic=True),
        QNetwork(make_spec("epsilon_greedy", observation=space, trunk=TINY)),
    ):
        wanted = dict(policy.weights) | ({"epsilon": np.zeros(1, np.float32)} if isinstance(network, QNetwork) else {})
        network.load_policy_weights(wanted)
        for name, weight in network.policy_weights().items():
            np.testing.assert_allclose(weight, wanted[name], rtol=1e-6, err_msg=name)
        assert network.num_policy_parameters == policy.spec.num_learned


def test_a_critic_that_shares_teaches_the_trunk_and_one_that_does_not_has_its_own() -> None:
    spec = make_spec(observation=STACK, trunk=TINY)
    planes = torch.from_numpy(STACK.encode(STACK.sample(np.random.default_rng(0), 3)))
    for shares in (True, False):
        network = ActorCritic(spec, has_critic=True, critic=Critic(shares=shares))
        network.value(planes).sum().backward()
        assert network.encoder is not None
        taught = [parameter.grad is not None for parameter in network.encoder.parameters()]
        assert taught == [shares] * len(taught)
        assert (network.critic_encoder is None) == shares
        outputs = network(planes, torch.zeros(3, dtype=torch.int64))
        torch.testing.assert_close(outputs.values, network.value(planes))
    assert network.critic is not None
    assert [tuple(layer.weight.shape) for layer in network.critic if isinstance(layer, torch.nn.Linear)][-1] == (1, 8)


def test_layers_of_numbers_can_be_shared_too() -> None:
    network = ActorCritic(make_spec(), has_critic=True, critic=Critic((16,), shares=True))
    assert network.critic is not None
    assert [tuple(layer.weight.shape) for layer in network.critic if isinstance(layer, torch.nn.Linear)] == [
        (16, 8),
        (1, 16),
    ]
    observations = torch.randn(5, 4)
    torch.testing.assert_close(
        network(observations, torch.zeros(5, dtype=torch.int64)).values, network.value(observations)
    )


def learner_of(kind: str, seen: Space) -> Learner:
    from learner.algorithms.dqn import DQN
    from learner.algorithms.ppo import PPO
    from learner.algorithms.pqn import PQN

    if kind == "ppo":
        return make_learner(make_spec(observation=seen, trunk=TINY), PPO, critic=Critic(shares=True))
    spec = make_spec("epsilon_greedy", observation=seen, trunk=TINY)
    options = {"learning_starts": 16, "replay_ratio": 1.0, "batch_size": 8, "buffer_size": 64} if kind == "dqn" else {}
    return make_learner(spec, DQN(**options) if kind == "dqn" else PQN(batch_size=8))


@pytest.mark.parametrize("seen", [STACK, PARTS], ids=["picture", "parts"])
@pytest.mark.parametrize("kind", ["ppo", "dqn", "pqn"])
def test_every_layer_learns_from_pictures(kind: str, seen: Space) -> None:
    learner = learner_of(kind, seen)
    before = learner.policy()
    after, metrics = learner.update(make_batch(before, [20, 11, 7]))
    assert metrics["train/gradient_steps"] > 0
    convolutions = [name for name in before.weights if "conv" in name]
    assert len(convolutions) == 4 * len([*pictures_in(seen)])
    for name in (*convolutions, "w0", "w1", "b1"):
        assert (after.weights[name] != before.weights[name]).any(), name
    assert not learner.notes() or kind == "dqn"  # nobody is told that convolutions are not recorded


def test_bfloat16_is_of_convolutions_alone() -> None:
    exact, rough = (
        make_learner(make_spec(observation=STACK, trunk=TINY), bfloat16=bfloat16, critic=Critic(shares=True))
        for bfloat16 in (False, True)
    )
    planes = torch.from_numpy(STACK.encode(STACK.sample(np.random.default_rng(0), 5)))
    features = [learner.network.encoded(planes) for learner in (exact, rough)]
    assert features[1].dtype == torch.float32
    assert 0 < (features[0] - features[1]).abs().max() < 0.02
    batch = make_batch(exact.policy(), [20, 11, 7])
    for learner in (exact, rough):
        policy, _ = learner.update(batch)
        assert {weight.dtype for weight in policy.weights.values()} == {np.dtype("float32")}


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_pictures_and_memory_go_together(memory: Any) -> None:
    learner = make_learner(
        make_spec(observation=STACK, trunk=TINY, memory=memory, memory_size=6),
        critic=Critic(shares=True),
        sequence_length=8,
    )
    before = learner.policy()
    after, metrics = learner.update(make_batch(before, [20, 11, 7]))
    assert abs(metrics["train/approx_kl"]) < 1
    for name in ("conv0_w", "w0", "w1", "core_hidden_w"):
        assert (after.weights[name] != before.weights[name]).any(), name
