"""Policies that remember, in numpy: against PyTorch's own cells, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.cores import CORE, CORES
from actors.errors import UserError
from actors.memory import restarted
from actors.policy import Policy
from actors.rollout import Rollout
from actors.spaces import Box, Discrete
from actors.spec import MOST_REMEMBERED, PolicyNetwork, PolicySpec, read_spec
from actors.vectors import make_environments
from tests.actors.examples import policy_for, random_policy, reshaped
from tests.learner import in_order

PLAIN = PolicySpec("CartPole-v1", Box((4,)), Discrete(2), "categorical", network=PolicyNetwork((8,)))
KINDS = ("gru", "lstm")


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_steps_are_pytorchs_with_episodes_that_end_in_between(kind: str) -> None:
    policy, rng = random_policy(reshaped(PLAIN, memory=kind, memory_size=6)), np.random.default_rng(0)
    weights = {name: torch.from_numpy(array * np.float32(0.3)) for name, array in policy.weights.items()}
    policy = Policy(policy.spec, {name: tensor.numpy() for name, tensor in weights.items()})
    cell = (torch.nn.GRUCell if kind == "gru" else torch.nn.LSTMCell)(8, 6)
    with torch.no_grad():
        for side, name in (("input", "ih"), ("hidden", "hh")):
            getattr(cell, f"weight_{name}").copy_(weights[f"core_{side}_w"].T)
            getattr(cell, f"bias_{name}").copy_(weights[f"core_{side}_b"])
        memory, state = policy.start(5), torch.zeros(5, 6) if kind == "gru" else (torch.zeros(5, 6),) * 2
        for _ in range(100):
            observations, begins = rng.standard_normal((5, 4), np.float32), rng.random(5) < 0.1
            memory = restarted(memory, begins, policy)
            goes_on = torch.from_numpy(~begins)[:, None]
            state = state * goes_on if kind == "gru" else tuple(part * goes_on for part in state)
            step = policy.step(observations, memory)
            hidden = torch.tanh(torch.from_numpy(observations) @ weights["w0"] + weights["b0"])
            state = cell(hidden, state)
            shown = state if kind == "gru" else state[0]
            np.testing.assert_allclose(step.parameters, shown @ weights["w1"] + weights["b1"], atol=2e-6)
            whole = state if kind == "gru" else torch.cat(state, 1)
            np.testing.assert_allclose(step.memory[CORE], whole, atol=2e-6)
            memory = step.memory


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_of_first_steps(kind: str) -> None:
    policy = random_policy(reshaped(PLAIN, memory=kind))
    observations = np.random.default_rng(0).standard_normal((7, 4), np.float32)
    first = policy.step(observations, policy.start(7))
    np.testing.assert_array_equal(policy.forward(observations), first.parameters)
    again = policy.step(observations, first.memory)
    assert np.abs(again.parameters - first.parameters).max() > 0.1
    assert first.memory[CORE].shape == (7, 64 * CORES[kind].states)
    assert first.memory[CORE].dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    policy = random_policy(reshaped(PLAIN, memory=kind, memory_size=5))
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.spec == policy.spec
    for name, array in policy.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    missing = {name: array for name, array in policy.weights.items() if name != "core_hidden_w"}
    with pytest.raises(UserError, match=r"core_hidden_w is missing"):
        Policy(policy.spec, missing)


def test_files_of_before_there_was_a_memory_have_none() -> None:
    data = json.loads(json.dumps(dataclasses.asdict(PLAIN)))
    for name in ("memory", "memory_size"):
        del data["network"][name]
    assert read_spec(data) == PLAIN
    assert random_policy(PLAIN).start(3) == {}


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"memory": "rnn"}, "memory 'rnn'"),
        ({"memory": "gru", "memory_size": 0}, "memory_size must lie between 1 and"),
        ({"memory": "gru", "memory_size": MOST_REMEMBERED + 1}, "memory_size must lie between 1 and"),
        ({"memory": "lstm", "hidden_sizes": ()}, "hidden_sizes must have one"),
    ],
)
def test_impossible_memories(network: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        reshaped(PLAIN, **network)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_flown_has_the_memories_that_its_segments_began_with(kind: str) -> None:
    policy = policy_for("CartPole-v1", memory=kind, memory_size=5)
    rollout = Rollout(make_environments("CartPole-v1", 4, seed=0), seed=1)
    for _ in range(3):  # segments of later ones go on with what was remembered
        batch = rollout.fragments(policy, 30)
        parameters = in_order(policy, batch.observations, batch.segment_lengths.tolist(), batch.memories)
        noted = policy.distribution.log_prob(parameters, batch.actions)
        np.testing.assert_allclose(batch.notes["log_prob"], noted, atol=1e-5)
    begun = (batch.memories[CORE] == 0).all(axis=1)
    assert begun.any()
    assert not begun.all()
