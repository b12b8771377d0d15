"""Room: how many actors a fleet may have, and what others are told of it."""

from __future__ import annotations

import pytest

from actors.room import Claim, Room, share

CLAIM = Claim(0, 8)
LABELS = {"role": "of the tests of rooms"}
"""Of no fleet: notes of one that was killed stay for a minute, and other tests kill theirs."""


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        ({"a": 8}, 5, {"a": 5}),
        ({"a": 8}, 0, {"a": 0}),
        ({"a": 8}, -1, {"a": 0}),
        ({"a": 8, "b": 8}, 5, {"a": 3, "b": 2}),
        ({"a": 8, "b": 1, "c": 8}, 10, {"a": 5, "b": 1, "c": 4}),
        ({"a": 2, "b": 1}, 10, {"a": 2, "b": 1}),
    ],
)
def test_shares_are_fair_and_no_larger_than_wanted(
    wanted: dict[str, int], there: int, expected: dict[str, int]
) -> None:
    assert share(wanted, there) == expected


@pytest.mark.usefixtures("ray_cluster")
def test_who_has_left_claims_nothing_more() -> None:
    first, second = (Room(1.0, LABELS) for _ in range(2))
    first.look(CLAIM)
    assert [*second._others().values()] == [CLAIM]
    first.leave()
    assert first.look(CLAIM) == 0
    assert second._others() == {}


@pytest.mark.usefixtures("ray_cluster")
def test_a_look_that_is_under_way_when_its_fleet_leaves_takes_its_note_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would take the fleet to be there for a minute."""
    first, second = (Room(1.0, LABELS) for _ in range(2))
    counting = Room._others

    def left_meanwhile(room: Room) -> dict[str, Claim]:
        assert [*counting(second).values()] == [CLAIM]
        first.leave()
        return counting(room)

    with monkeypatch.context() as patch:
        patch.setattr(Room, "_others", left_meanwhile)
        first.look(CLAIM)
    assert second._others() == {}
