"""GPT-2's core: what it is told of, what its sizes may be, and what it refuses. Its arithmetic is held against
transformers' own in tests/serve/test_import_transformers.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.cores import CORE
from actors.errors import UserError
from actors.gpt2 import GPT2, GPT2_ACTIVATIONS
from actors.memory import restarted
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spaces import Box
from actors.spec import PolicyNetwork, PolicySpec, read_spec
from learner.networks.config import NetworkConfig
from serve.hub.formats.onnx import to_onnx
from tests.actors.examples import random_policy, reshaped

NETWORK = PolicyNetwork(
    *((), "tanh", True),
    memory="gpt2",
    memory_size=8,
    memory_heads=2,
    memory_window=4,
    gpt2=GPT2(n_inner=5, max_ep_len=6),
)
SPEC = PolicySpec(
    *("Pendulum-v1", Box((3,)), Box((1,), low=(-2.0,), high=(2.0,)), "gaussian"), network=NETWORK, target_return=-200.0
)


def small_policy(spec: PolicySpec = SPEC) -> Policy:
    """Weights of which no tanh is at its ends; the output layer passes on what the core gives, as of imported ones."""
    policy = random_policy(spec)
    smaller = {name: array * np.float32(0.3) for name, array in policy.weights.items() if name.startswith("core")}
    return Policy(spec, policy.weights | smaller | {"w0": np.eye(1, dtype=np.float32), "b0": np.zeros(1, np.float32)})


def flown(policy: Policy, observations: np.ndarray[Any, Any], rewards: float = 1.0) -> np.ndarray[Any, Any]:
    """The actions of one episode, [steps, A], for observations [steps, 3]."""
    memory, actions = policy.start(1), []
    for observation in observations:
        step = policy.step(observation[None], memory)
        actions.append(step.parameters[0])
        memory = policy.rewarded(step.memory, np.array([rewards]))
    return np.array(actions)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    policy = small_policy()
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.spec == policy.spec
    observations = np.random.default_rng(0).standard_normal((9, 3), np.float32)
    np.testing.assert_array_equal(flown(again, observations), flown(policy, observations))


def test_episodes_of_other_lengths_in_one_batch_do_not_disturb_one_another() -> None:
    policy, rng = small_policy(), np.random.default_rng(0)
    observations = rng.standard_normal((12, 3, 3), np.float32)
    memory, actions = policy.start(3), np.zeros((12, 3, 1))
    for number in range(12):
        memory = restarted(memory, np.array([False, number == 7, number in (2, 10)]), policy)
        step = policy.step(observations[number], memory)
        actions[number], memory = step.parameters, policy.rewarded(step.memory, np.ones(3))
    for slot, (first, last) in ((0, (0, 12)), (1, (0, 7)), (1, (7, 12)), (2, (2, 10)), (2, (10, 12))):
        alone = flown(policy, observations[first:last, slot])
        np.testing.assert_allclose(actions[first:last, slot], alone, atol=1e-6)


def test_it_depends_on_its_window_and_on_nothing_before() -> None:
    policy, rng = small_policy(), np.random.default_rng(0)
    observations = rng.standard_normal((30, 3), np.float32)
    whole = flown(policy, observations, 0.0)
    other = observations.copy()
    other[:10] += 1
    changed = flown(policy, other, 0.0)
    difference = np.abs(whole - changed).max(axis=1)
    assert (difference[:13] > 1e-5).all()  # and actions among what it is told carry it on for a while
    last = flown(policy.asked_for(-100.0), observations, 0.0)
    assert (np.abs(whole - last).max(axis=1) > 1e-5).all()


def test_steps_beyond_the_last_embedding_have_it_and_the_window_is_told_in_order() -> None:
    policy = small_policy()
    memory = policy.start(1)
    for number in range(9):
        step = policy.step(np.full((1, 3), number, np.float32), memory)
        memory = policy.rewarded(step.memory, np.array([10.0]))
    row = memory[CORE][0]
    assert row[1:3].tolist() == [-290, 9]
    std, mean = policy.weights["observation_std"], policy.weights["observation_mean"]
    told = row[3:].reshape(4, 5)
    np.testing.assert_array_equal(told[:, 0], [-250, -260, -270, -280])
    np.testing.assert_allclose(told[:, 1:4], (np.arange(5, 9)[:, None] - mean) / std, rtol=1e-5)
    assert told[-1, 4] == 0
    assert row[0] == step.parameters[0, 0]
    one, more = policy.weights["core_time"].copy(), policy.weights["core_time"].copy()
    more[-1] += np.arange(8)  # the same for each unit would be normalised away
    later = [Policy(policy.spec, policy.weights | {"core_time": time}) for time in (one, more)]
    steps = [flown(each, np.ones((20, 3), np.float32)) for each in later]
    assert (np.abs(steps[0] - steps[1]).max(axis=1) > 1e-6).tolist() == [False] * 5 + [True] * 15


def test_observations_are_not_clipped() -> None:
    policy = small_policy()
    mean, std = policy.weights["observation_mean"], policy.weights["observation_std"]
    far = [(mean + std * NORMALIZED_LIMIT * times)[None].astype(np.float32) for times in (1, 2)]
    assert np.abs(policy.forward(far[0]) - policy.forward(far[1])).max() > 1e-5


def test_any_memory_that_a_stranger_sends_gives_numbers() -> None:
    policy = small_policy()
    for steps in (-5, 1e30, 3.5):
        memory = policy.start(2)
        memory[CORE][0, 2] = steps
        assert np.isfinite(policy.step(np.ones((2, 3), np.float32), memory).parameters).all()


def test_exact_gelu() -> None:
    from scipy.special import erf

    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    np.testing.assert_allclose(GPT2_ACTIVATIONS["gelu"](x), 0.5 * x * (1 + erf(x / np.sqrt(2))), atol=2e-6)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"hidden_sizes": (8,)}, "hidden_sizes must be empty"),
        ({"normalize_observations": False}, "normalize_observations must be true"),
        ({"gpt2": None}, "one is missing"),
        ({"memory": "transformer", "hidden_sizes": (8,)}, "one is missing"),
        ({"memory_heads": 3}, "must be a multiple of memory_heads 3"),
        ({"memory_window": 4096}, r"memory_window\)² scores are 301,989,888, more than 4,194,304"),
        ({"memory_layers": 65}, "memory_layers must lie between 1 and 64"),
        ({"memory_size": 4096, "memory_layers": 64}, "MiB, more than 256"),
    ],
)
def test_impossible_networks(network: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        reshaped(SPEC, **network)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("n_inner", 0, "n_inner must lie between"),
        ("max_ep_len", 2**20 + 1, "max_ep_len must lie between"),
        ("activation_function", "mish", "activation_function 'mish'"),
        ("layer_norm_epsilon", 0.0, "layer_norm_epsilon must lie"),
        ("layer_norm_epsilon", float("nan"), "layer_norm_epsilon must lie"),
        ("n_head", 3, "'n_head' is no field"),
        ("n_inner", 8.0, "int"),
    ],
)
def test_impossible_shapes_in_files(field: str, value: Any, said: str) -> None:
    data = json.loads(json.dumps(dataclasses.asdict(SPEC)))
    assert read_spec(json.loads(json.dumps(data))) == SPEC
    data["network"]["gpt2"][field] = value
    with pytest.raises(ValueError, match=said):
        read_spec(data)


def test_what_it_cannot_be_used_for_is_one_line() -> None:
    with pytest.raises(UserError, match="is flown and served, and not trained further"):
        NetworkConfig().with_policys(dataclasses.asdict(NETWORK))
    with pytest.raises(UserError, match="memory gpt2 stands in the place of hidden layers"):
        NetworkConfig(memory="gpt2")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="memory gpt2 has no form in ONNX"):
        to_onnx(small_policy())
    with pytest.raises(UserError, match="acts for a target_return"):
        dataclasses.replace(SPEC, target_return=None)
