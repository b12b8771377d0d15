import dataclasses
import itertools
import json
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.discrete import Categorical
from actors.distributions import DISTRIBUTIONS
from actors.episode import Array
from actors.errors import NonFiniteError, UserError
from actors.layers import ACTIVATIONS
from actors.parts import Parts
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from actors.spec import MOST_BYTES, SPACES, PolicyNetwork, PolicySpec
from learner.networks.actor_critic import ActorCritic
from tests.actors.examples import random_policy, reshaped
from tests.learner import property_test

DEEP, SHALLOW = PolicyNetwork((16, 8)), PolicyNetwork((8,))
CATEGORICAL = PolicySpec(
    "CartPole-v1", Box((4,)), Discrete(2), "categorical", network=DEEP, version=7, trained={"seed": 3}
)
ARM = Box((2, 2), low=(-1.0,) * 4, high=(1.0, 1.0, 0.5, np.inf))
GAUSSIAN = PolicySpec("Arm-v0", Box((2, 3)), ARM, "gaussian", network=SHALLOW)
MULTI = PolicySpec(
    "Odd-v0",
    MultiDiscrete((3, 2), (2,), (1, -4)),
    MultiDiscrete((2, 3, 2, 2), (2, 2), (0, 5, 0, 0)),
    "multi_categorical",
)
BITS = PolicySpec("Odd-v0", MultiBinary((2, 2)), MultiBinary((3, 1)), "bernoulli", network=SHALLOW)
STATE_DEPENDENT = dataclasses.replace(GAUSSIAN, distribution="state_dependent_gaussian")
PARTS = Parts(
    {"near": Box((2,), "float64"), "far": Parts({"0": Discrete(4, -1), "1": MultiBinary((2,))}, is_tuple=True)}
)
EPSILON_GREEDY = dataclasses.replace(CATEGORICAL, distribution="epsilon_greedy")
BOUNDED = dataclasses.replace(ARM, high=(1.0, 3.0, 0.5, 9.0))
SQUASHED = dataclasses.replace(GAUSSIAN, action=BOUNDED, distribution="squashed_gaussian")
NESTED = PolicySpec("Odd-v0", PARTS, ARM, "gaussian", network=PolicyNetwork((8,), normalize_observations=True))
SPECS = {
    "categorical": CATEGORICAL,
    "gaussian": GAUSSIAN,
    "parts": NESTED,
    "multi_categorical": MULTI,
    "bernoulli": BITS,
    "state_dependent_gaussian": STATE_DEPENDENT,
    "epsilon_greedy": EPSILON_GREEDY,
    "squashed_gaussian": SQUASHED,
    "a cell of a grid": dataclasses.replace(
        CATEGORICAL, observation=Discrete(16, start=2), action=Discrete(3, start=-1)
    ),
    "linear": reshaped(CATEGORICAL, hidden_sizes=()),
    "normalised": reshaped(GAUSSIAN, normalize_observations=True),
    "normalised in float64": dataclasses.replace(
        reshaped(GAUSSIAN, normalize_observations=True), observation=Box((2, 3), "float64")
    ),
    "scaled": dataclasses.replace(
        GAUSSIAN, action=dataclasses.replace(ARM, high=(5.0, 0.0, -0.5, np.inf)), scale_actions=True
    ),
    "layer norm": reshaped(CATEGORICAL, layer_norm=True),
    "layer norm before noise": reshaped(STATE_DEPENDENT, layer_norm=True),
    **{f"categorical {name}": reshaped(CATEGORICAL, activation=name) for name in ACTIVATIONS},
    **{f"gaussian {name}": reshaped(GAUSSIAN, activation=name) for name in ACTIVATIONS},
}
OLD_CATEGORICAL: dict[str, Any] = {
    **{"env_id": "CartPole-v1", "observation_shape": [4], "actions": "categorical", "action_size": 2},
    **{"action_low": [], "action_high": [], "action_shape": [], "scale_actions": False, "hidden_sizes": [16, 8]},
    **{"activation": "tanh", "normalize_observations": False, "observation_dtype": "float32", "version": 7},
    **{"trained": {"seed": 3}},
}
"""The same specs as they were written before spaces had kinds."""
OLD_GAUSSIAN: dict[str, Any] = OLD_CATEGORICAL | {
    **{"env_id": "Arm-v0", "observation_shape": [2, 3], "actions": "gaussian", "action_size": 4},
    **{"action_low": [-1.0] * 4, "action_high": [1.0, 1.0, 0.5, "Infinity"], "action_shape": [2, 2]},
    **{"hidden_sizes": [8], "version": 0, "trained": {}},
}
IMPORT_ALL = """
import importlib, pkgutil, sys
import actors
names = [module.name for module in pkgutil.iter_modules(actors.__path__)]
for name in sorted(names, key=lambda name: name in ("actor_pool", "fleet", "room")):
    importlib.import_module(f"actors.{name}")
    print(name, *[package for package in ("ray", "torch") if package in sys.modules])
"""
COLLECT = """
import sys
from actors.actor import RolloutActor
from actors.rollout import RolloutConfig
from tests.actors.examples import policy_for
actor = RolloutActor()
actor.prepare("CartPole-v1", RolloutConfig(n_envs=2, n_steps=4), seed=0)
actor.collect(policy_for("CartPole-v1"))
print("torch" in sys.modules)
"""
FULL_DISK = """
import resource, sys
from actors.policy import Policy
policy = Policy.load(sys.argv[1])
policy.weights["b0"] += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    policy.save(sys.argv[1])
except OSError as error:
    print(error.strerror)
"""


def observations(spec: PolicySpec, count: int = 50) -> Array:
    sampled = spec.observation.sample(np.random.default_rng(5), count)
    return 3 * sampled if isinstance(spec.observation, Box) else sampled


def run_python(*arguments: str) -> str:
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_saved_policy_comes_back_the_same(tmp_path: Path, spec: PolicySpec) -> None:
    policy = random_policy(spec)
    policy.save(tmp_path / "policy")
    twin = Policy.load(tmp_path / "policy")
    assert twin.spec == spec
    o = observations(spec)
    np.testing.assert_array_equal(twin.act(o), policy.act(o), strict=True)
    sampled, expected = (each.act(o, np.random.default_rng(6)) for each in (twin, policy))
    np.testing.assert_array_equal(sampled, expected, strict=True)


def test_a_pickled_policy_comes_back_the_same() -> None:
    policy = random_policy(SPECS["normalised"])
    twin = pickle.loads(pickle.dumps(policy))
    assert twin.spec == policy.spec
    np.testing.assert_array_equal(twin.act(observations(policy.spec)), policy.act(observations(policy.spec)))


def test_the_json_beside_the_weights_is_the_spec(tmp_path: Path) -> None:
    random_policy(CATEGORICAL).save(tmp_path)
    assert json.loads((tmp_path / "policy.json").read_text()) == json.loads(json.dumps(dataclasses.asdict(CATEGORICAL)))


@pytest.mark.parametrize("actions", [CATEGORICAL, GAUSSIAN], ids=["categorical", "gaussian"])
def test_every_reader_takes_its_json_and_older_files_still_load(tmp_path: Path, actions: PolicySpec) -> None:
    policy = random_policy(actions)
    policy.save(tmp_path)
    with safetensors.safe_open(tmp_path / "policy.safetensors", "numpy") as file:
        for text in (file.metadata()["spec"], (tmp_path / "policy.json").read_text()):
            spec = json.loads(text, parse_constant=pytest.fail)
            assert spec["action"].get("high") == ([1.0, 1.0, 0.5, "Infinity"] if actions is GAUSSIAN else None)
    old = OLD_GAUSSIAN if actions is GAUSSIAN else OLD_CATEGORICAL
    infinite = {"action_high": [1.0, 1.0, 0.5, np.inf]} if actions is GAUSSIAN else {}
    for text in (json.dumps(old), json.dumps(old | infinite), json.dumps(dataclasses.asdict(actions))):
        write_policy(tmp_path, {"spec": text}, policy.weights)  # the last two as Python writes infinity
        assert Policy.load(tmp_path).spec == actions


def test_weights_that_are_not_contiguous_are_saved_right(tmp_path: Path) -> None:
    policy = random_policy(CATEGORICAL)
    turned = {name: np.asfortranarray(array) for name, array in policy.weights.items()}
    Policy(CATEGORICAL, turned).save(tmp_path)
    for name, array in Policy.load(tmp_path).weights.items():
        np.testing.assert_array_equal(array, policy.weights[name], err_msg=name)


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
    actions = policy.distribution.sample(parameters, policy.distribution.noise(np.random.default_rng(0), (len(o),)))
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


def test_a_file_that_does_not_speak_of_scaling_is_of_a_policy_that_clips(tmp_path: Path) -> None:
    policy = random_policy(GAUSSIAN)
    spec = OLD_GAUSSIAN | {"action_low": [3.0] * 4, "action_high": [5.0] * 4}
    del spec["scale_actions"]
    write_policy(tmp_path, {"spec": json.dumps(spec)}, policy.weights)
    o = observations(GAUSSIAN)
    expected = policy.forward(o).clip(3, 5).reshape(-1, 2, 2)
    np.testing.assert_array_equal(Policy.load(tmp_path).act(o), expected)


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


def assert_refused_in_one_line(directory: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Policy.load(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


def write_policy(directory: Path, metadata: dict[str, str] | None, weights: dict[str, Array]) -> None:
    safetensors.numpy.save_file(weights, directory / "policy.safetensors", metadata=metadata)


def test_no_policy_is_said_so(tmp_path: Path) -> None:
    assert_refused_in_one_line(tmp_path / "nowhere", "policy.safetensors is missing")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_damaged(tmp_path: Path, kept: int) -> None:
    random_policy(CATEGORICAL).save(tmp_path)
    path = tmp_path / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused_in_one_line(tmp_path, "damaged")


@pytest.mark.parametrize(
    "content", [b"\0" * 200, b"\xff" * 200, b"no policy at all\n" * 9, b"\x02" + b"\0" * 7 + b"{}"]
)
def test_garbage_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy.safetensors").write_bytes(content)
    assert_refused_in_one_line(tmp_path, "damaged")


def test_a_flipped_bit_is_damaged_or_leaves_a_whole_policy(tmp_path: Path) -> None:
    random_policy(CATEGORICAL).save(tmp_path)
    path = tmp_path / "policy.safetensors"
    good, rng = path.read_bytes(), np.random.default_rng(10)
    refusals = []
    for _ in range(100):
        content = bytearray(good)
        content[rng.integers(len(good))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            Policy.load(tmp_path)
        except UserError as error:
            refusals.append(str(error))
    assert 0 < len(refusals) < 100
    assert not [message for message in refusals if "\n" in message]


@pytest.mark.parametrize("spec", [None, "", "{", "[]", "null", "{}", "[" * 100_000])
def test_a_spec_that_is_none_is_damaged(tmp_path: Path, spec: str | None) -> None:
    write_policy(tmp_path, None if spec is None else {"spec": spec}, random_policy(CATEGORICAL).weights)
    assert_refused_in_one_line(tmp_path, "damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"actions": "gaussian"},
        {"action_size": "2"},
        {"hidden_sizes": ["wide"]},
        {"hidden_sizes": 8},
        {"observation_shape": [float("inf")]},
        {"activation": []},
        {"throttle": 1},
        {"env_id": 7},
        {"env_id": ["CartPole-v1"]},
        {"env_id": ""},
        {"env_id": "x" * 1001},
        {"env_id": "[/bold]-v0"},
        {"env_id": "\x1b[2J-v0"},
        {"env_id": "Cart\ud800-v0"},
        {"observation_shape": [4.0]},
        {"observation_shape": [2**40, 2**24]},
        {"observation_shape": [4, *[1] * 64]},
        {"hidden_sizes": [True, 8]},
        {"normalize_observations": 1},
        {"scale_actions": "no"},
        {"version": "x"},
        {"version": None},
        {"version": True},
        {"version": 7.0},
        {"version": -1},
        {"version": 10**400},
        {"trained": None},
        {"trained": []},
        {"trained": {"seed": "\ud800"}},
        {"trained": {"seed": float("nan")}},
        {"trained": {"seed": float("-inf")}},
        {"trained": {"notes": "x" * 70_000}},
    ],
)
def test_an_older_spec_of_wrong_values_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = json.dumps(OLD_CATEGORICAL | change)
    write_policy(tmp_path, {"spec": spec}, random_policy(CATEGORICAL).weights)
    assert_refused_in_one_line(tmp_path, "damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"actions": "categorical"},
        {"action_low": []},
        {"action_low": [-1.0, -1.0]},
        {"action_high": ["a", "b", "c", "d"]},
        {"action_high": [1.0, 1.0, 0.5, float("nan")]},
        {"action_high": [1.0, 1.0, 0.5, 1e300]},
        {"action_high": [1.0, 1.0, 0.5, "infinite"]},
        {"action_high": [1.0, 1.0, 0.5, -2.0]},
        {"action_low": [float("inf"), -1.0, -1.0, -1.0], "action_high": [float("inf"), 1.0, 1.0, 1.0]},
        {"action_shape": [5]},
        {"action_shape": [2**32, 2**32, 4]},
    ],
)
def test_older_action_bounds_that_do_not_fit_are_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = json.dumps(OLD_GAUSSIAN | change)
    write_policy(tmp_path, {"spec": spec}, random_policy(GAUSSIAN).weights)
    assert_refused_in_one_line(tmp_path, "damaged")


@pytest.mark.parametrize(
    "change",
    [
        *({"observation": wrong} for wrong in (None, [], {}, {"kind": "bax", "shape": [4]}, {"kind": ["box"]})),
        *(
            {"observation": {"kind": "parts", "spaces": wrong}}
            for wrong in (None, [], {}, {"a": 1}, {"a": {"kind": "x"}})
        ),
        *({"observation": {"kind": "box", "shape": wrong}} for wrong in (None, [4.0], [0], [2**40], [4, *[1] * 64])),
        {"observation": {"kind": "box", "shape": [4], "dtype": "float16"}},
        {"observation": {"kind": "box", "shape": [4], "n": 4}},
        *({"action": {"kind": "discrete", "n": wrong}} for wrong in (0, -1, "2", 2.0, True, 2**31)),
        {"action": {"kind": "discrete", "n": 2, "start": 2**40}},
        {"action": {"kind": "multi_discrete", "nvec": [2], "shape": [1]}},
        {"action": {"kind": "box", "shape": [2], "low": [0.0, 0.0], "high": [1.0, 1.0]}},
        {"distribution": "gaussian"},
        {"distribution": None},
        *({"network": wrong} for wrong in (None, {"hidden_sizes": [True, 8]}, {"activation": []}, {"depth": 3})),
    ],
)
def test_a_spec_of_wrong_values_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = json.dumps(dataclasses.asdict(CATEGORICAL) | change)
    write_policy(tmp_path, {"spec": spec}, random_policy(CATEGORICAL).weights)
    assert_refused_in_one_line(tmp_path, "damaged")


@pytest.mark.parametrize("depth", [20, 300, 5_000])
def test_spaces_nested_too_deep_are_damaged(tmp_path: Path, depth: int) -> None:
    space = '{"kind": "parts", "spaces": {"a": ' * depth + '{"kind": "discrete", "n": 2}' + "}}" * depth
    spec = json.dumps(dataclasses.asdict(CATEGORICAL) | {"observation": "HERE"}).replace('"HERE"', space)
    write_policy(tmp_path, {"spec": spec}, random_policy(CATEGORICAL).weights)
    assert_refused_in_one_line(tmp_path, "damaged")


def test_a_file_of_both_forms_is_damaged(tmp_path: Path) -> None:
    spec = json.dumps(OLD_CATEGORICAL | {"network": {}})
    write_policy(tmp_path, {"spec": spec}, random_policy(CATEGORICAL).weights)
    assert_refused_in_one_line(tmp_path, "observation_shape is of older files, network of newer ones")


def test_a_network_that_no_file_holds_is_refused() -> None:
    with pytest.raises(UserError, match=r"1000000000 × 16 × 8 × 2 units would take 61,\d+ MiB, more than 256"):
        dataclasses.replace(CATEGORICAL, observation=Discrete(10**9))


def test_a_file_with_a_nan_is_damaged_and_names_the_weight(tmp_path: Path) -> None:
    policy = random_policy(CATEGORICAL)
    policy.weights["b1"][0] = np.nan
    policy.save(tmp_path)
    assert_refused_in_one_line(tmp_path, "b1")


JSON = st.recursive(
    st.one_of(
        st.sampled_from([None, True, -1, 0, 1, 2, 2.0, 2**31, 2**63, 10**400, math.inf, math.nan, 1e300, "", "\ud800"]),
        st.text(max_size=5),
        st.sampled_from(["\x1b[2J", "[/bold]-v0", "tanh", "gaussian", "Infinity"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


FIELDS = [field.name for kind in (PolicySpec, PolicyNetwork, *SPACES.values()) for field in dataclasses.fields(kind)]


@property_test
@given(
    st.sampled_from([CATEGORICAL, SPECS["scaled"], SPECS["normalised"], MULTI, BITS, NESTED]),
    st.sampled_from([None, "observation", "action", "network"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
)
def test_whatever_a_spec_says_it_is_a_policy_or_one_printable_line(
    spec: PolicySpec, part: str | None, change: dict[str, Any]
) -> None:
    fields = dataclasses.asdict(spec)
    (fields[part] if part else fields).update(change)
    text = json.dumps(fields)
    data = safetensors.numpy.save(random_policy(spec).weights, {"spec": text})
    refused = None
    try:
        policy = Policy.parse(data, "a file")
    except UserError as error:
        refused = str(error)
    if refused is None:
        assert policy.act(observations(policy.spec)).shape == (50, *policy.spec.action.shape)
        assert Policy.parse(policy.files()["policy.safetensors"], "it").spec == policy.spec
        json.dumps(dataclasses.asdict(policy.spec), ensure_ascii=False).encode()
    else:
        assert refused.startswith("a file is damaged: ")
        assert refused.isprintable()


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    random_policy(CATEGORICAL).save(tmp_path)
    with (tmp_path / "policy.safetensors").open("r+b") as file:
        file.truncate(10 * MOST_BYTES)  # a hole, which takes no room
    assert_refused_in_one_line(tmp_path, "more than 256 MiB")


def test_a_header_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    write_policy(tmp_path, {"spec": " " * 2_000_000}, random_policy(CATEGORICAL).weights)
    assert_refused_in_one_line(tmp_path, "a header of more than one")


@pytest.mark.parametrize(("name", "value"), [("observation_std", 0), ("observation_std", -1), ("log_std", 100)])
def test_an_impossible_standard_deviation_is_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    policy = random_policy(SPECS["normalised"])
    policy.weights[name][0] = value
    policy.save(tmp_path)
    assert_refused_in_one_line(tmp_path, name)


def test_a_file_with_a_misshapen_weight_is_damaged(tmp_path: Path) -> None:
    weights = random_policy(CATEGORICAL).weights | {"w0": np.zeros((3, 16), np.float32)}
    write_policy(tmp_path, {"spec": json.dumps(dataclasses.asdict(CATEGORICAL))}, weights)
    assert_refused_in_one_line(tmp_path, r"weights do not fit.*\(3, 16\)")


def test_weights_of_an_exotic_type_are_damaged(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = random_policy(CATEGORICAL).weights
    eighths = {name: torch.from_numpy(array).to(torch.float8_e4m3fn) for name, array in weights.items()}
    save_file(eighths, tmp_path / "policy.safetensors", {"spec": json.dumps(dataclasses.asdict(CATEGORICAL))})
    assert_refused_in_one_line(tmp_path, "damaged")


def test_a_full_disk_leaves_the_old_policy(tmp_path: Path) -> None:
    policy = random_policy(CATEGORICAL)
    policy.save(tmp_path)
    assert run_python(FULL_DISK, str(tmp_path)) == "File too large"
    np.testing.assert_array_equal(Policy.load(tmp_path).weights["b0"], policy.weights["b0"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.json", "policy.safetensors"]


def test_a_reader_never_sees_a_mixture_of_versions(tmp_path: Path) -> None:
    seen: list[int] = []
    done = threading.Event()

    def save(version: int) -> None:
        spec = dataclasses.replace(CATEGORICAL, version=version)
        weights = {name: np.full(shape, version, np.float32) for name, shape in spec.weight_shapes().items()}
        Policy(spec, weights).save(tmp_path)

    def write() -> None:
        for version in itertools.count(1):
            save(version)
            if done.is_set():
                return

    save(0)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        while writer.is_alive() and len(set(seen)) < 100:
            policy = Policy.load(tmp_path)
            assert all((array == policy.spec.version).all() for array in policy.weights.values())
            assert json.loads((tmp_path / "policy.json").read_text())["env_id"] == CATEGORICAL.env_id
            seen.append(policy.spec.version)
    finally:
        done.set()
        writer.join()
    assert seen == sorted(seen)
    assert len(set(seen)) == 100


def test_only_the_fleet_imports_ray_and_nothing_torch() -> None:
    *others, pool, fleet, room = run_python(IMPORT_ALL).splitlines()
    assert "actor" in others
    assert [line for line in others if " " in line] == []
    assert [pool, fleet, room] == ["actor_pool ray", "fleet ray", "room ray"]


def test_an_actor_that_flies_never_imports_torch() -> None:
    assert run_python(COLLECT) == "False"
