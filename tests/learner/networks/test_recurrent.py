"""Learning through a memory: gradients, windows, and what they may not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors.cores import CORE, CORES
from actors.parts import Parts
from actors.policy import Policy
from actors.spaces import Box, Discrete, MultiBinary
from actors.spec import PolicyNetwork, PolicySpec
from learner.algorithms.ppo import PPO
from learner.networks.cores import TorchCore
from learner.networks.recurrent import RecurrentActorCritic, drift
from tests.learner import ACTIONS, make_batch, make_spec
from tests.learner.learners import make_learner

KINDS = ("gru", "lstm")
LENGTHS = [10, 1, 15, 24]
BY_GRADIENT = [name for name in ACTIONS if name not in ("epsilon_greedy", "squashed_gaussian")]


def made(kind: str, inputs: int = 5, units: int = 6) -> tuple[TorchCore, nn.Module]:
    """A core of random weights, and PyTorch's cell of the same."""
    torch.manual_seed(0)
    network = PolicyNetwork((inputs,), memory=kind, memory_size=units)  # type: ignore[arg-type]
    core = TorchCore(PolicySpec("CartPole-v1", Box((4,)), Discrete(2), "categorical", network=network)).double()
    for parameter in core.parameters():
        nn.init.normal_(parameter, std=0.5)
    cell = (nn.GRUCell if kind == "gru" else nn.LSTMCell)(inputs, units).double()
    with torch.no_grad():
        cell.weight_ih.copy_(core.core_input_w.T)
        cell.weight_hh.copy_(core.core_hidden_w.T)
        cell.bias_ih.copy_(core.core_input_b)
        cell.bias_hh.copy_(core.core_hidden_b)
    return core, cell


def looped(cell: nn.Module, x: Tensor, start: Tensor, lengths: list[int], window: int) -> tuple[Tensor, Tensor]:
    """Memories before and after each step, episode by episode; gradients stop at multiples of a window."""
    before, after, row = [], [], 0
    for length, begun in zip(lengths, start[:, None], strict=True):
        memory = begun
        for _ in range(length):
            memory = memory.detach() if row % window == 0 else memory
            before.append(memory)
            state = cell(x[row : row + 1], memory if isinstance(cell, nn.GRUCell) else memory.chunk(2, 1))
            memory = state if isinstance(cell, nn.GRUCell) else torch.cat(state, 1)
            after.append(memory)
            row += 1
    return torch.cat(before), torch.cat(after)


def first_steps(lengths: list[int]) -> Tensor:
    begins = torch.zeros(sum(lengths), dtype=torch.bool)
    begins[torch.tensor([0, *lengths[:-1]]).cumsum(0)] = True
    return begins


@pytest.mark.parametrize("window", [1, 7, 10, 50, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_autograds_of_a_plain_loop(kind: str, window: int) -> None:
    core, cell = made(kind)
    x = torch.randn(sum(LENGTHS), 5, dtype=torch.float64, requires_grad=True)
    start = torch.randn(len(LENGTHS), CORES[kind].states * 6, dtype=torch.float64)
    before, expected = looped(cell, x, start, LENGTHS, window)
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    with torch.no_grad():
        mine, after = core.segments(x, start, ends)
    torch.testing.assert_close(mine, before.detach())
    torch.testing.assert_close(after, expected.detach())

    found = core.windows(x, mine, first_steps(LENGTHS), window)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    names = ("core_input_w", "core_hidden_w", "core_input_b", "core_hidden_b")
    ours = torch.autograd.grad((found * weights).sum(), [x, *(getattr(core, name) for name in names)])
    theirs = torch.autograd.grad((expected * weights).sum(), [x, *cell.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other if other.shape == one.shape else other.T)


@pytest.mark.parametrize("kind", KINDS)
def test_what_fills_the_last_window_up_changes_nothing(kind: str) -> None:
    core, _ = made(kind)
    x = torch.randn(23, 5, dtype=torch.float64)
    memories = torch.randn(23, CORES[kind].states * 6, dtype=torch.float64)
    begins = torch.zeros(23, dtype=torch.bool)
    weights = torch.randn(23, memories.shape[1], dtype=torch.float64)
    gradients = []
    for steps in (23, 20):  # windows of 5: the last of 23 has two more rows, which count for nothing
        found = core.windows(x[:steps], memories[:steps], begins[:steps], 5)
        rest = core.windows(x[20:], memories[20:], begins[20:], 3) if steps == 20 else found[:0]
        whole = torch.cat([found, rest])
        gradients.append(torch.autograd.grad((whole * weights).sum(), [*core.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actions", BY_GRADIENT)
def test_the_numpy_policy_is_the_torch_network(actions: str, kind: str) -> None:
    """Log-probabilities that the policy noted as it flew are those of the network, whatever its actions."""
    network: dict[str, Any] = {"memory": kind, "memory_size": 6, "layer_norm": True, "normalize_observations": True}
    learner = make_learner(make_spec(actions, **network), PPO(normalize_advantage=False, sequence_length=4))
    learner._normalizer.update(np.random.default_rng(0).normal(1, 2, (100, 4)))  # type: ignore[union-attr]
    learner._begin()
    policy = learner.policy()
    flown = learner._uploaded(make_batch(policy, LENGTHS, seed=1))
    with torch.no_grad():
        columns, _ = learner.algorithm.prepare(learner.network, flown)
    outputs = learner.algorithm.outputs(learner.network, columns)  # type: ignore[attr-defined]
    torch.testing.assert_close(outputs.log_probs, flown.notes["log_prob"], atol=2e-5, rtol=1e-4)
    assert float(outputs.memory_drift) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_parts_are_seen(kind: str) -> None:
    observation = Parts({"a": Box((2,)), "b": Discrete(3), "action_mask": MultiBinary((3,))})
    spec = make_spec(observation=observation, memory=kind)
    learner = make_learner(spec, sequence_length=8)
    batch = make_batch(learner.policy(), LENGTHS)
    _, metrics = learner.update(batch)
    assert metrics["train/memory_drift"] > 0


def test_windows_reach_no_further_than_they_say_and_memories_are_given() -> None:
    """With windows of one step the gradient of a step's value knows nothing of the observation before."""
    spec = make_spec(memory="gru")
    network = RecurrentActorCritic(spec, True, None, length=3)
    observations = torch.randn(6, 4, requires_grad=True)
    memories, begins = torch.zeros(6, 64), torch.zeros(6, dtype=torch.bool)
    outputs = network(observations, torch.zeros(6, dtype=torch.int64), None, memories, begins)
    (gradient,) = torch.autograd.grad(outputs.values[5], observations)
    assert [bool(row.any()) for row in gradient] == [False] * 3 + [True] * 3


def test_drift_is_relative_and_leaves_out_what_begins() -> None:
    after, memories = torch.tensor([[1.0], [2.0], [9.0], [4.0]]), torch.tensor([[0.0], [2.0], [2.0], [7.0]])
    begins = torch.tensor([True, False, False, True])
    torch.testing.assert_close(drift(after, memories, begins), torch.tensor((1 / 8) ** 0.5))
    assert float(drift(after[:1], memories[:1], begins[:1])) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_policys_weights_come_back(kind: str) -> None:
    spec: PolicySpec = make_spec(memory=kind, memory_size=7, layer_norm=True)
    one, other = (RecurrentActorCritic(spec, True, None, 4) for _ in range(2))
    other.load_policy_weights(one.policy_weights())
    for name, array in Policy(spec, other.policy_weights()).weights.items():
        np.testing.assert_array_equal(array, one.policy_weights()[name], err_msg=name)
    assert one.num_policy_parameters == spec.num_learned
    critic = sum(own.numel() for own in one.critic.parameters())  # type: ignore[union-attr]
    assert sum(own.numel() for own in one.parameters()) == spec.num_learned + critic
    assert Policy(spec, one.policy_weights()).start(2)[CORE].shape == (2, 7 * CORES[kind].states)
