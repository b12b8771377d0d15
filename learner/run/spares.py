"""Processes that outlive a run, for the next one."""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
from ray.exceptions import RayError


@dataclasses.dataclass
class Spares:
    """Processes that a run has done with and the next one of the same fleet can use: starting them takes seconds."""

    actors: list[Any] = dataclasses.field(default_factory=list)
    learners: list[Any] = dataclasses.field(default_factory=list)

    def forget_dead(self) -> None:
        """Leave only those that answer."""
        self.actors[:] = filter(_is_alive, self.actors)
        self.learners[:] = filter(_is_alive, self.learners)


def _is_alive(actor: Any) -> bool:
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=60)
    except RayError:
        return False
    return True
