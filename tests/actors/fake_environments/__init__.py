"""Environments for tests. Ray workers import them by this module's name, ``tests.actors.fake_environments:Id-v0``."""

from tests.actors.fake_environments.drawn import Painted
from tests.actors.fake_environments.spaces import Forbidding, Spaces
from tests.actors.fake_environments.tasks import LONG, Scripted, steps_environments
from tests.actors.fake_environments.wrong import DIE, FLY, NAN, RAISE, Wrong, old_step

__all__ = [
    "DIE",
    "FLY",
    "LONG",
    "NAN",
    "RAISE",
    "Forbidding",
    "Painted",
    "Scripted",
    "Spaces",
    "Wrong",
    "old_step",
    "steps_environments",
]
