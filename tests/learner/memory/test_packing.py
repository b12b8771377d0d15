"""Observations of several parts as rows of bytes: a batch is read as its steps saw it, and holds each frame once."""

import numpy as np
import pytest
import torch

from actors import trees
from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Box, Discrete, Space
from learner.memory.frames import Frames
from learner.memory.packing import Packing, as_learned, pooling
from tests.actors.examples import random_policy
from tests.learner import make_batch, make_spec

EYE = Picture((3, 20, 24, 3), 3)
PARTS = Parts({"speed": Box((2,)), "eye": EYE, "in": Parts({"gear": Discrete(5, 1), "map": Picture((2, 9, 8), 2)})})
PICTURES = Parts({"0": Picture((9, 8)), "1": EYE}, is_tuple=True)


def test_observations_with_pictures_among_others_are_packed() -> None:
    assert isinstance(pooling(PARTS), Packing)
    assert isinstance(pooling(PICTURES), Packing)
    assert pooling(EYE) is EYE
    assert pooling(Parts({"speed": Box((2,))})) is None


@pytest.mark.parametrize("space", [PARTS, PICTURES], ids=["numbers and pictures", "pictures"])
@pytest.mark.parametrize("lengths", [[4, 1, 6], [1], [9]])
def test_a_batch_is_read_as_its_steps_saw_it(space: Space, lengths: list[int]) -> None:
    batch = make_batch(random_policy(make_spec(observation=space)), lengths)
    kept = batch.observations, batch.final_observations, batch.earlier, batch.segment_lengths
    packing = Packing(space)
    pool, *places = map(torch.from_numpy, packing.pooled(*kept))
    for some, whole in zip(places, space.restored(*kept), strict=True):
        expected = as_learned(space, whole)
        np.testing.assert_array_equal(Frames(pool, some, packing.frames)[:][:, -1], expected[:, -1])  # the newest row
        for _, part, place in packing.parts:
            if isinstance(part, Picture):
                read = Frames(pool, some, packing.frames)[:][:, -part.frames :, place]
                np.testing.assert_array_equal(read, expected[:, -part.frames :, place])


def test_a_row_holds_floats_and_the_newest_frames() -> None:
    values = PARTS.sample(np.random.default_rng(0), 4)
    rows, packing = as_learned(PARTS, values), Packing(PARTS)
    newest = sum(picture.inputs // picture.frames for _, picture, _ in packing.parts if isinstance(picture, Picture))
    assert rows.dtype == np.uint8
    assert rows.shape == (4, 3, 4 * (2 + 5) + newest)
    numbers = rows[:, -1, : packing.number_bytes].copy().view(np.float32)
    np.testing.assert_array_equal(numbers[:, :2], values["speed"])
    np.testing.assert_array_equal(numbers[:, 2:].argmax(1) + 1, values["in"]["gear"])
    found = dict(trees.leaves(values))
    for name, part, place in packing.parts:
        if isinstance(part, Picture):
            planes = rows[:, -part.frames :, place].reshape(4, *part.planes)
            np.testing.assert_array_equal(planes, part.encode(found[name]), err_msg=name)
