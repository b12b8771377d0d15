"""Configurations as older versions wrote them, so that their runs go on and their files are read."""

from __future__ import annotations

from typing import Any

from actors.errors import UserError, unknown
from learner.algorithms.registry import ALGORITHMS

_ALGORITHMS = ("n_epochs", "batch_size", "target_kl")
_PLACEMENT = ("device", "gpu_share", "learners", "learner_labels", "threads")


def modernised(changes: dict[str, Any]) -> dict[str, Any]:
    """A nested dictionary of options, whose sections ``loss`` and ``update`` have become three others (2026-11).

    Raises:
        UserError: it names a loss of the user's own, which is a method of an algorithm now.
    """
    if not {"loss", "update"} & changes.keys():
        return changes
    rest = {name: value for name, value in changes.items() if name not in ("loss", "update")}
    if both := [name for name in ("algorithm", "optimisation", "placement") if name in rest]:
        raise UserError(f"the sections loss and update are of older versions, {both[0]} is of this one: give either")
    sections: dict[str, dict[str, Any]] = {"algorithm": {}, "optimisation": {}, "placement": {}}
    for old in ("loss", "update"):
        if not isinstance(changes.get(old, {}), dict):
            raise UserError(f"{old} must be an object of fields, not {changes[old]!r}")
    for name, value in changes.get("loss", {}).items():
        sections["algorithm"]["name" if name == "loss" else name] = value
    for name, value in changes.get("update", {}).items():
        new = "algorithm" if name in _ALGORITHMS else "placement" if name in _PLACEMENT else "optimisation"
        sections[new][name] = value
    named = sections["algorithm"].get("name", "ppo")
    if not isinstance(named, str):
        raise UserError(f"loss.loss: must be a name, not {named!r}")
    if named not in ALGORITHMS and ":" not in named:
        raise unknown("loss", named, ALGORITHMS)
    if named not in ALGORITHMS:
        raise UserError(
            f"loss {named!r}: a loss of one's own is a method of an algorithm now: give algorithm.name, as "
            "CONTRIBUTING.md shows"
        )
    if named != "ppo":
        sections["algorithm"].pop("clip_range", None)  # which every loss had, and one read
    return rest | {name: section for name, section in sections.items() if section}
