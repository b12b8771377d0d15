"""Trunks: their text, their sizes, and how they act."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from actors.environments import describe
from actors.errors import UserError
from actors.parts import Parts
from actors.pictures import Picture, pictures_in
from actors.policy import Policy
from actors.spaces import Box, Discrete, Space
from actors.spec import PolicyNetwork, PolicySpec, read_spec
from actors.trunk_graph import Encoder
from actors.trunks import TRUNKS, Layer, features_of, find_trunk, read_trunk
from tests.actors.convolutions import trunk_features
from tests.actors.examples import random_policy

MINE = "4x3/2"
TOO_MANY = " ".join(["4x1"] * 17)


def seeing(space: Space, trunk: str, **network: Any) -> PolicySpec:
    """The spec of a policy with three actions that sees this."""
    shape = PolicyNetwork(hidden_sizes=(8,), trunk=trunk, **network)
    return PolicySpec("CarRacing-v3", space, Discrete(3), "categorical", network=shape)


def test_a_text_is_read_layer_by_layer() -> None:
    assert read_trunk("32x8/4 64x3 r16") == (Layer(32, 8, 4), Layer(64, 3, 1), Layer(16, is_residual=True))
    assert read_trunk("") == ()


@pytest.mark.parametrize(
    "text", ["32", "32x", "0x3", "32x0", "32x3/0", "r", "r0", "32x3/1,", "-1x3", TOO_MANY, "r1 " * 99]
)
def test_what_is_no_trunk_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        PolicyNetwork(trunk=text)
    assert "\n" not in str(error.value)
    assert "trunk" in str(error.value)


def test_a_network_is_found_by_its_name_or_for_its_pictures() -> None:
    atari, doom, maze = Picture((4, 84, 84), 4), Picture((30, 45)), Picture((7, 7, 3))
    assert [find_trunk("auto", seen) for seen in (atari, doom, maze, Box((3,)))] == [
        TRUNKS["nature"],
        TRUNKS["small"],
        "",
        "",
    ]
    assert find_trunk("impala", doom) == "r16 r32 r32"
    assert find_trunk("16x3 16x3", maze) == "16x3 16x3"
    assert find_trunk("tests.actors.test_trunks:MINE", doom) == MINE
    for network, said in [
        ("natur", "did you mean nature"),
        ("nature", "30 × 45 pixels are too small"),
        ("tests.actors.test_trunks:Layer", "must be the text of a trunk, not type"),
        ("tests.actors.test_trunks:Nothing", "has no attribute"),
    ]:
        with pytest.raises(UserError, match=said):
            find_trunk(network, doom)


def test_features_are_those_of_pictures_and_all_other_numbers() -> None:
    parts = Parts({"eye": Picture((30, 45)), "speed": Box((2,)), "gear": Discrete(3)})
    assert features_of(Picture((4, 84, 84), 4), TRUNKS["nature"]) == 3136
    assert features_of(parts, TRUNKS["small"]) == 32 * 2 * 4 + 5
    assert features_of(parts, "") == 30 * 45 + 5


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
@pytest.mark.parametrize("picture", [Picture((84, 84)), Picture((4, 40, 44), 4), Picture((42, 37, 3))], ids=str)
def test_what_acts_is_what_numpy_works_out(picture: Picture, trunk: str) -> None:
    policy = random_policy(seeing(picture, trunk))
    values = picture.sample(np.random.default_rng(1), 3)
    if not trunk:
        wanted = picture.numbers(values)
        np.testing.assert_allclose(policy.forward(values), layers(policy, wanted), rtol=1e-4, atol=1e-4)
        return
    wanted = trunk_features(values, picture, "", trunk, policy.weights)
    features = Encoder(picture, trunk, policy.weights)(values)
    assert features.dtype == np.float32
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(features / scale, wanted / scale, atol=1e-5)
    np.testing.assert_allclose(policy.forward(values), layers(policy, features), rtol=1e-5, atol=1e-5)


def layers(policy: Policy, features: Any) -> Any:
    """What the layers after a trunk make of its features."""
    weights = policy.weights
    return np.tanh(features @ weights["w0"] + weights["b0"]) @ weights["w1"] + weights["b1"]


def test_pictures_among_parts_have_trunks_of_their_own() -> None:
    parts = Parts({"left": Picture((12, 12)), "speed": Box((2,)), "in": Parts({"right": Picture((12, 14, 3))})})
    policy = random_policy(seeing(parts, MINE))
    values = parts.sample(np.random.default_rng(1), 3)
    eyes = dict(pictures_in(parts))
    wanted = np.concatenate(
        [
            trunk_features(values["left"], eyes["left"], "left", MINE, policy.weights),
            values["speed"],
            trunk_features(values["in"]["right"], eyes["in.right"], "in.right", MINE, policy.weights),
        ],
        axis=1,
    )
    np.testing.assert_allclose(Encoder(parts, MINE, policy.weights)(values), wanted, rtol=1e-4, atol=1e-4)
    assert policy.spec.layer_sizes[0] == wanted.shape[1]


def test_a_policy_that_sees_is_saved_and_read(tmp_path: Any) -> None:
    policy = random_policy(seeing(Picture((4, 20, 20), 4), MINE))
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.spec == policy.spec
    values = policy.spec.observation.sample(np.random.default_rng(1), 5)
    np.testing.assert_array_equal(again.forward(values), policy.forward(values))


def test_specs_that_contradict_themselves_are_refused() -> None:
    for space, changes, said in [
        (Box((3,)), {"trunk": MINE}, "convolutions are for pictures"),
        (Picture((9, 9)), {"trunk": MINE, "normalize_observations": True}, "are not standardised"),
        (Picture((9, 9)), {"trunk": "8x12"}, "9 × 9 pixels are too small"),
    ]:
        with pytest.raises(UserError, match=said):
            seeing(space, **changes)
    spec = dataclasses.asdict(seeing(Picture((9, 9)), MINE))
    spec["network"]["trunk"] = "8by3"
    with pytest.raises(ValueError, match="no layer of a trunk"):
        read_spec(spec)


def test_a_racing_cars_pictures_are_flown() -> None:
    spec = describe("CarRacing-v3(continuous=False)").policy_spec(trunk=TRUNKS["nature"], hidden_sizes=(16,))
    assert random_policy(spec).act(spec.observation.sample(np.random.default_rng(0), 2)).shape == (2,)
