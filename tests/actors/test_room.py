from __future__ import annotations

from pathlib import Path

import pytest

import actors.room
from actors.room import Claim, Room, share


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


@pytest.mark.parametrize(
    ("cpus", "labels", "expected"),
    [(1.0, {"role": "actor"}, 128), (8.0, {"role": "actor"}, 16), (1.0, {"role": "moon"}, 0), (1.0, {}, 4 + 128)],
)
def test_the_ceiling_is_that_of_the_clusters_file(
    monkeypatch: pytest.MonkeyPatch, cpus: float, labels: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(actors.room, "_CLUSTER_FILE", Path(__file__).parents[2] / "cluster" / "gpu.yaml")
    assert Room(cpus, labels)._ceiling() == expected
    monkeypatch.setattr(actors.room, "_CLUSTER_FILE", Path("/there/is/none.yaml"))
    assert Room(cpus, labels)._ceiling() == 0


@pytest.mark.usefixtures("ray_cluster")
def test_who_has_left_claims_nothing_more() -> None:
    """Not even by a look that was under way: others would take it to be there for a minute."""
    kind: dict[str, str] = {"role": "head"}
    first, second, claim = Room(1.0, kind), Room(1.0, kind), Claim(0, 8)
    alone = first.look(claim)
    assert alone > 1
    assert second.look(claim) < alone
    first.leave()
    assert first.look(claim) == 0
    assert second.look(claim) == alone
    second.leave()


@pytest.mark.usefixtures("ray_cluster")
def test_a_look_that_is_under_way_when_its_fleet_leaves_takes_its_note_away(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, claim = Room(1.0, {"role": "head"}), Room(1.0, {"role": "head"}), Claim(0, 8)
    alone = second.look(claim)
    counting = Room._others

    def left_meanwhile(room: Room) -> dict[str, Claim]:
        first.leave()
        return counting(room)

    with monkeypatch.context() as patch:
        patch.setattr(Room, "_others", left_meanwhile)
        first.look(claim)
    assert second.look(claim) == alone
    second.leave()
