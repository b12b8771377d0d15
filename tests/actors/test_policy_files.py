"""A policy that is saved comes back the same, from files of any age, and is never half-written."""

import dataclasses
import functools
import itertools
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors

from actors.policy import Policy
from actors.spec import PolicySpec
from actors.trees import map_leaves
from tests.actors.examples import random_policy
from tests.actors.programs import run_python
from tests.actors.specs import CATEGORICAL, GAUSSIAN, OLD_CATEGORICAL, OLD_GAUSSIAN, SPECS, observations, write_policy

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


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_saved_policy_comes_back_the_same(tmp_path: Path, spec: PolicySpec) -> None:
    policy = random_policy(spec)
    policy.save(tmp_path / "policy")
    twin = Policy.load(tmp_path / "policy")
    assert twin.spec == spec
    o = observations(spec)
    for rng in (None, 6):
        acted, expected = (each.act(o, rng and np.random.default_rng(rng)) for each in (twin, policy))
        map_leaves(functools.partial(np.testing.assert_array_equal, strict=True), acted, expected)


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


def test_a_file_that_does_not_speak_of_scaling_is_of_a_policy_that_clips(tmp_path: Path) -> None:
    policy = random_policy(GAUSSIAN)
    spec = OLD_GAUSSIAN | {"action_low": [3.0] * 4, "action_high": [5.0] * 4}
    del spec["scale_actions"]
    write_policy(tmp_path, {"spec": json.dumps(spec)}, policy.weights)
    o = observations(GAUSSIAN)
    expected = policy.forward(o).clip(3, 5).reshape(-1, 2, 2)
    np.testing.assert_array_equal(Policy.load(tmp_path).act(o), expected)


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
