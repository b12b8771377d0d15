"""What a run came to, for who called it and for who reads its directory later."""

from __future__ import annotations

import dataclasses
import math
import shlex
from typing import Any

from actors.policy import Policy
from learner.run.config import TrainConfig
from learner.run.counters import Counters
from learner.run.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to."""

    reason: str
    """Why it ended, in words."""
    policy: Policy
    """What it hands over: the policy that reached the target, or else the newest."""
    directory: RunDirectory
    config: TrainConfig
    counters: Counters
    target_reached: bool = False

    @property
    def mean_return(self) -> float:
        """Mean return of the last window of training episodes; NaN before the first."""
        return self.counters.mean_return

    @property
    def missed(self) -> bool:
        """Whether the run was to reach a return, and ended without it."""
        return self.config.stop.target_return is not None and not self.target_reached

    @property
    def outcome(self) -> str:
        """Why it ended, and what it was to reach and did not."""
        return (
            f"{self.reason}, short of the target return {self.config.stop.target_return:g}"
            if self.missed
            else self.reason
        )

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to do unless target or budget change; a run that was stopped can go on."""
        return self.target_reached or self.config.stop.progress(*self.counters.spent) >= 1

    @property
    def hint(self) -> str | None:
        """What to try if the run has ended and never improved; else None."""
        if not self.has_ended or self.counters.improved is not False:
            return None
        return (
            f"training returns never rose above those of the first {self.config.stop.window} episodes "
            f"(mean {self.counters.first_mean_return:.1f}): try more steps, another --learning-rate than "
            f"{self.config.optimisation.learning_rate:g}, another --preset, or look for better settings with python -m "
            f"tune_configs.search; python -m actors.check_env {shlex.quote(self.config.env)} tells if the environment "
            "is sound"
        )

    def record(self) -> dict[str, Any]:
        """What result.json holds."""
        counters = self.counters
        best, evaluation = counters.best_mean_return, counters.best_evaluation
        return {
            "reason": self.reason,
            "has_ended": self.has_ended,
            "target_return": self.config.stop.target_return,
            "target_reached": self.target_reached,
            "improved": counters.improved,
            "mean_return": counters.mean_return,
            "best_mean_return": best if math.isfinite(best) else None,
            "best_evaluation": evaluation if math.isfinite(evaluation) else None,
            "policy_version": self.policy.spec.version,
            "total_timesteps": counters.total_timesteps,
            "episodes": counters.episodes,
            "seconds": counters.seconds,
        }
