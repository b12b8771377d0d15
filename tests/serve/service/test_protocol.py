"""Requests: what they say, and one line for each way to get them wrong."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest

from actors.environments import describe
from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.spec import PolicyNetwork
from actors.trees import leaves
from serve.service.protocol import MOST_OBSERVATIONS, Problem, decode, observations_of, problem_body

SPEC = describe("LunarLander-v3").policy_spec()
PARTS = Parts({"a": Box((2,)), "b c": Parts({"0": Discrete(4)}, is_tuple=True)})
WHOLE = {"a": [1, 2], "b c": [3]}
EIGHT = [1, 2.5, 3, 4, 5, 6, 7, -8e30]


def test_one_and_many() -> None:
    one = observations_of(decode(json.dumps({"observation": EIGHT}).encode()), SPEC)
    np.testing.assert_array_equal(one, np.array([EIGHT], np.float32))
    many = observations_of(decode(json.dumps({"observations": [EIGHT, EIGHT]}).encode()), SPEC)
    assert many.shape == (2, 8)
    assert many.dtype == np.float32


def test_a_policy_gets_numbers_in_its_own_dtype() -> None:
    spec = dataclasses.replace(
        SPEC, observation=Box((8,), "float64"), network=PolicyNetwork(normalize_observations=True)
    )
    numbers = [1e9 + 0.01, *EIGHT[1:]]
    assert observations_of(decode(json.dumps({"observation": numbers}).encode()), spec).tolist() == [numbers]


@pytest.mark.parametrize(
    ("space", "right", "wrong", "takes", "field"),
    [
        (Discrete(16, start=1), 16, 17, "a whole number from 1 to 16", "observation"),
        (Discrete(16), 0, -1, "a whole number from 0 to 15", "observation"),
        (Discrete(16), 3, 3.5, "a whole number from 0 to 15", "observation"),
        (Discrete(16), 3, [3], "a whole number from 0 to 15", "observation"),
        (MultiDiscrete((3, 2), (2,), (0, 5)), [2, 6], [2, 7], "2 whole numbers, from 0 to 2, 5 to 6", "observation[1]"),
        (MultiBinary((2, 2)), [[0, 1], [1, 1]], [[0, 1], [2, 1]], "2 × 2 zeros and ones", "observation[1][0]"),
        (MultiBinary((2,)), [0, 1], [0, True], "2 zeros and ones", "observation[1]"),
        (
            PARTS,
            {"a": [1, 2], "b c": [3]},
            {"a": [1, 2], "b c": [4]},
            "takes an object of .a: 2 numbers; b c: a list",
            "observation.b c[0]",
        ),
        (PARTS, WHOLE, {"a": [1, 1e39], "b c": [3]}, "32-bit", "observation.a[1]"),
        (PARTS, WHOLE, {"a": [1, "2"], "b c": [3]}, "expected float", "observation.a[1]"),
        (PARTS, WHOLE, {"a": [1, 2]}, "missing required field b c", "observation"),
        (PARTS, WHOLE, {"a": [1, 2], "b c": [3], "d": 1}, "unknown field d", "observation"),
    ],
)
def test_whole_numbers(space: Space, right: Any, wrong: Any, takes: str, field: str) -> None:
    spec = dataclasses.replace(SPEC, observation=space)
    taken = observations_of(decode(json.dumps({"observation": right}).encode()), spec)
    given = {**right, "b c": tuple(right["b c"])} if isinstance(space, Parts) else right
    for (name, leaf), (_, expected) in zip(leaves(taken), leaves(space.stack([given])), strict=True):
        np.testing.assert_array_equal(leaf, expected, err_msg=name, strict=True)
    with pytest.raises(Problem, match=takes) as caught:
        observations_of(decode(json.dumps({"observation": wrong}).encode()), spec)
    assert caught.value.field == field
    assert caught.value.status == 422


def test_as_many_discrete_observations_as_fit_into_memory() -> None:
    spec = dataclasses.replace(SPEC, observation=Discrete(2**17))
    body = json.dumps({"observations": [0] * 200}).encode()
    with pytest.raises(Problem, match="200 observations at once; LunarLander-v3 takes 128 in a request"):
        observations_of(decode(body), spec)


def test_a_nan_in_a_part_is_found() -> None:
    with pytest.raises(Problem) as caught:
        decode(b'{"observation": {"a": [1, NaN]}}')
    assert caught.value.field == "observation.a[1]"


def test_several_dimensions() -> None:
    spec = dataclasses.replace(SPEC, observation=Box((2, 3)))
    assert observations_of(decode(b'{"observation": [[1,2,3],[4,5,6]]}'), spec).shape == (1, 2, 3)
    with pytest.raises(Problem, match="takes 2 × 3 numbers") as caught:
        observations_of(decode(b'{"observation": [[1,2,3],[4,5]]}'), spec)
    assert caught.value.field == "observation[1]"


PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def in_base64(pixels: Any) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


@pytest.mark.parametrize("given", [PICTURE.tolist(), in_base64(PICTURE)])
def test_a_picture_is_lists_or_the_base64_of_its_bytes(given: Any) -> None:
    spec = dataclasses.replace(SPEC, observation=Picture((2, 3, 4), frames=2))
    taken = observations_of(decode(json.dumps({"observation": given}).encode()), spec)
    np.testing.assert_array_equal(taken, PICTURE[None], strict=True)
    many = observations_of(decode(json.dumps({"observations": [given, PICTURE.tolist()]}).encode()), spec)
    np.testing.assert_array_equal(many, np.stack([PICTURE, PICTURE]), strict=True)


def test_a_picture_among_parts() -> None:
    spec = dataclasses.replace(SPEC, observation=Parts({"eye": Picture((2, 3)), "speed": Box((1,))}))
    pixels = PICTURE[0, :2, :3]
    rows = [{"eye": in_base64(pixels), "speed": [2]}, {"eye": pixels.tolist(), "speed": [3]}]
    taken: Any = observations_of(decode(json.dumps({"observations": rows}).encode()), spec)
    np.testing.assert_array_equal(taken["eye"], np.stack([pixels, pixels]), strict=True)
    np.testing.assert_array_equal(taken["speed"], np.array([[2], [3]], np.float32), strict=True)
    with pytest.raises(Problem, match=r"length >= 6; .* or in base64 eye as 6 bytes") as caught:
        observations_of(decode(json.dumps({"observation": {**rows[0], "eye": "AAAA"}}).encode()), spec)
    assert caught.value.field == "observation.eye"


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ([[0, 256], [0, 0]], "observation[0][1]", "expected int <= 255"),
        ([[0, 0], [0, -1]], "observation[1][1]", "expected int >= 0"),
        ([[0, 0], [0, 0.5]], "observation[1][1]", "expected int, got float"),
        ([[0, 0]], "observation", "expected array of length >= 2"),
        ("AAAAAAA=", "observation", "expected bytes of length <= 4"),
        ("AA==", "observation", "expected bytes of length >= 4"),
        ("not base64!", "observation", "invalid base64 encoded string"),
        (3, "observation", "expected bytes | array, got int"),
    ],
)
def test_what_is_no_picture(wrong: Any, field: str, said: str) -> None:
    spec = dataclasses.replace(SPEC, observation=Picture((2, 2)))
    right = "LunarLander-v3 takes 2 × 2 whole numbers from 0 to 255, or in base64 4 bytes"
    with pytest.raises(Problem) as caught:
        observations_of(decode(json.dumps({"observation": wrong}).encode()), spec)
    assert (caught.value.status, caught.value.field) == (422, field)
    assert caught.value.detail == f"{said}; {right}"


def body(**fields: object) -> bytes:
    return json.dumps({"observation": EIGHT, **fields}).encode()


@pytest.mark.parametrize(
    ("text", "status", "field", "said"),
    [
        (b"", 400, None, "the body is not JSON"),
        (b"{", 400, None, "the body is not JSON"),
        (b"\xff\xfe", 400, None, "the body is not JSON"),
        (b"[" * 100_000, 422, None, "expected object, got array"),
        (b'{"observation":' + b"[" * 100_000, 400, None, "the body is not JSON"),
        (b'{"observation":[1,2,3,4,5,6,7,NaN]}', 400, "observation[7]", "the body is not JSON"),
        (b'{"observations":[[1],[2,-Infinity]]}', 400, "observations[1][1]", "the body is not JSON"),
        (body(policy="p" * 1000), 422, "policy", "expected str of length <= 200"),
        (json.dumps({"o" * 1000: 1}).encode(), 422, "o" * 200, "unknown field"),
        (b'{"observation":[1,2,3,4,5,6,7,1e999]}', 422, "observation[7]", "number out of range"),
        (b'{"observation":[1,2,3,4,5,6,7,' + b"9" * 5000 + b"]}", 422, "observation[7]", "number out of range"),
        (b"[]", 422, None, "expected object, got array"),
        (b"null", 422, None, "expected object, got null"),
        (b"{}", 422, "observation", "neither is given"),
        (b'{"observation": null}', 422, "observation", "expected array, got null"),
        (body(observations=[EIGHT]), 422, "observation", "both are given"),
        (body(observation=EIGHT[:7]), 422, "observation", "expected array of length >= 8; LunarLander-v3 takes 8"),
        (body(observation=[*EIGHT, 9]), 422, "observation", "expected array of length <= 8; LunarLander-v3 takes 8"),
        (body(observation=[*EIGHT[:7], "8"]), 422, "observation[7]", "expected float, got str"),
        (body(observation=[*EIGHT[:7], True]), 422, "observation[7]", "expected float, got bool"),
        (body(observation=[*EIGHT[:7], None]), 422, "observation[7]", "expected float, got null"),
        (body(observation=[*EIGHT[:7], [8]]), 422, "observation[7]", "expected float, got array"),
        (body(observation=[*EIGHT[:7], -1e39]), 422, "observation[7]", "beyond the range of 32-bit floats"),
        (body(observation="12345678"), 422, "observation", "expected array, got str"),
        (json.dumps({"observations": []}).encode(), 422, "observations", "length >= 1"),
        (json.dumps({"observations": [EIGHT, EIGHT[:3]]}).encode(), 422, "observations[1]", "length >= 8"),
        (json.dumps({"observations": [EIGHT, [1e39, *EIGHT[:7]]]}).encode(), 422, "observations[1][0]", "beyond"),
        (json.dumps({"observations": [EIGHT] * (MOST_OBSERVATIONS + 1)}).encode(), 422, "observations", "<= 4096"),
        (body(seed=-1), 422, "seed", "expected int >= 0"),
        (body(seed=2**63), 422, "seed", ""),
        (body(seed=1.5), 422, "seed", "expected int | null, got float"),
        (body(deterministic="yes"), 422, "deterministic", "expected bool | null, got str"),
        (body(policy=3), 422, "policy", "expected str | null, got int"),
        (b'{"observatoin": [1]}', 422, "observatoin", "unknown field observatoin"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(text: bytes, status: int, field: str | None, said: str) -> None:
    with pytest.raises(Problem) as caught:
        observations_of(decode(text), SPEC)
    problem = caught.value
    assert (problem.status, problem.field) == (status, field)
    assert said in problem.detail
    assert "\n" not in problem.detail
    assert "`" not in problem.detail
    assert msgspec.json.decode(problem_body(problem, "title"))["detail"] == problem.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(), inner, max_size=4),
)
BODY = st.dictionaries(st.sampled_from(["observation", "observations", "seed", "deterministic", "policy", "x"]), JSON)


@hypothesis.given(st.binary() | JSON.map(json.dumps).map(str.encode) | BODY.map(json.dumps).map(str.encode))
def test_no_body_raises_anything_but_a_problem(text: bytes) -> None:
    with contextlib.suppress(Problem):
        assert np.isfinite(observations_of(decode(text), SPEC)).all()
