"""The options of a fleet."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from actors.errors import UserError


@dataclasses.dataclass(frozen=True)
class FleetConfig:
    """How many actors fly, where, and how far behind the learner they may be."""

    actors: int | Literal["auto"] = "auto"
    """Actor processes; auto: as many as the update has use for and free CPUs allow, shared with other runs; more as its
    autoscaler starts machines."""
    rollouts_per_update: int = 1
    """Rollouts that make one update's batch."""
    max_policy_lag: int = 1
    """0: actors wait for each update, and runs repeat to the bit. 1: they fly meanwhile. More: with V-trace only."""
    cpus_per_actor: float = 1.0
    """CPUs that Ray sets aside for an actor."""
    actor_labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Ray node labels that an actor's node must have."""
    max_failures: int = 3
    """Exceptions in a row from one actor's environments after which the run stops."""

    def __post_init__(self) -> None:
        if self.actors != "auto" and (isinstance(self.actors, str) or self.actors < 1):
            raise UserError(f"actors must be 1 or more, or auto, not {self.actors}")
        for name, least in (("rollouts_per_update", 1), ("max_policy_lag", 0), ("max_failures", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if not 0 <= self.cpus_per_actor < math.inf:
            raise UserError(f"cpus_per_actor must be zero or more, not {self.cpus_per_actor}")

    @property
    def max_outstanding(self) -> int:
        """Rollouts in the air, waiting or being learned from, at most."""
        return self.rollouts_per_update * (1 + self.max_policy_lag)

    @property
    def is_repeatable(self) -> bool:
        """Whether which actor flies which rollout follows from the configuration alone."""
        return self.max_policy_lag == 0
