"""The returns that a viewer may ask a policy for."""

from __future__ import annotations

import msgspec

from actors.spec import PolicySpec


class Target(msgspec.Struct):
    """The return that a flight is for, and those that can be asked for."""

    asked: float
    least: float
    most: float


class _Returns(msgspec.Struct):
    """Of the episodes that a policy learned from, as it may say among how it was trained."""

    least: float
    most: float


def target_of(spec: PolicySpec) -> Target | None:
    """What a policy may be asked for: the returns of what it learned from, or where it does not say these, those around
    its own; None: it acts for no return in particular."""
    own = spec.target_return
    if own is None:
        return None
    try:
        returns = msgspec.convert(spec.trained.get("returns"), _Returns)
    except msgspec.ValidationError:
        returns = _Returns(own - abs(own or 1), own + abs(own or 1))
    least, most = min(returns.least, own), max(returns.most, own)
    return Target(own, least, most if most > least else least + 1)
