"""The returns that a viewer may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from serve.watch.targets import Target, target_of
from tests.actors.examples import policy_for


@pytest.mark.parametrize(
    ("own", "trained", "least", "most"),
    [
        (200.0, {}, 0, 400),
        (-90.0, {}, -180, 0),
        (0.0, {}, -1, 1),
        (200.0, {"returns": {"least": -500.5, "mean": 3, "most": 280}}, -500.5, 280),
        (300.0, {"returns": {"least": -500, "mean": 3, "most": 280}}, -500, 300),
        (3.0, {"returns": {"least": 3, "mean": 3, "most": 3}}, 3, 4),
        (200.0, {"returns": {"least": "low", "most": 280}}, 0, 400),
        (200.0, {"returns": [0, 1]}, 0, 400),
    ],
)
def test_what_it_learned_from_or_what_is_around_its_own(
    own: float, trained: dict[str, Any], least: float, most: float
) -> None:
    spec = policy_for("CartPole-v1", memory="transformer", target_return=own, trained=trained).spec
    assert target_of(spec) == Target(own, least, most)


def test_others_have_none() -> None:
    assert target_of(policy_for("CartPole-v1").spec) is None
