"""A policy's file that is damaged, wrong or far too large is refused in one line that names it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import UserError
from actors.parts import leaf_spaces
from actors.policy import Policy
from actors.spec import MOST_BYTES, SPACES, PolicyNetwork, PolicySpec
from actors.trees import leaves
from tests.actors.examples import random_policy
from tests.actors.specs import (
    BITS,
    CATEGORICAL,
    GAUSSIAN,
    MULTI,
    NESTED,
    OLD_CATEGORICAL,
    OLD_GAUSSIAN,
    SPECS,
    observations,
    write_policy,
)
from tests.learner import property_test


def assert_refused_in_one_line(directory: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Policy.load(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


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
    assert_refused_in_one_line(tmp_path, "damaged: '(__metadata__|spec)' is missing" if spec is None else "damaged")


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
        actions = dict(leaves(policy.act(observations(policy.spec))))
        shapes = {name: (50, *space.shape) for name, space in leaf_spaces(policy.spec.action)}
        assert {name: column.shape for name, column in actions.items()} == shapes
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
