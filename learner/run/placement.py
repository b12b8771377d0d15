"""Where learners compute."""

from __future__ import annotations

import dataclasses
from typing import Literal

from actors.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class PlacementConfig:
    """How many learners there are, and where."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner computes; auto: on a GPU where it is given one."""
    gpu_share: float = 1.0
    """GPUs that Ray sets aside for the learner where the cluster has them; less than 1 shares one between runs."""
    learners: int = 1
    """Learners that share every minibatch, on a GPU each where the cluster has as many; they make the steps of one."""
    learner_labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Ray node labels that a learner's node must have."""
    threads: int = 1
    """CPU threads of the learner; more help only large networks."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise unknown("device", self.device, ("auto", "cpu", "cuda"))
        if not 0 < self.gpu_share <= 1:
            raise UserError(f"gpu_share must lie above 0 and be at most 1, not {self.gpu_share}")
        if self.learners < 1:
            raise UserError(f"learners must be 1 or more, not {self.learners}")
        if self.learners > 1 and self.gpu_share < 1:
            raise UserError(f"several learners need a GPU each: gpu_share must be 1, not {self.gpu_share}")
        if self.threads < 1:
            raise UserError(f"threads must be 1 or more, not {self.threads}")
