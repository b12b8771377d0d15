"""Counters: how far a run is."""

from __future__ import annotations

import dataclasses
import math
import statistics

from actors.actor import RolloutReport

_STANDARD_ERRORS = 4
"""Standard errors by which the best of many windows must lie over the first, so that it is no chance."""


@dataclasses.dataclass
class Counters:
    """How far a run is. Saved with every checkpoint."""

    total_timesteps: int = 0
    episodes: int = 0
    updates: int = 0
    seconds: float = 0.0
    """Since collection began, pauses between runs excluded."""
    best_mean_return: float = -math.inf
    """Best running mean over a full window of episodes."""
    first_mean_return: float | None = None
    """Mean of the first full window; None: there is none yet."""
    first_standard_error: float = 0.0
    """The standard error of ``first_mean_return``."""
    best_evaluation: float = -math.inf
    """Best mean return of a policy that was evaluated beside training."""
    evaluated_at: int = 0
    """Steps before the last such evaluation."""
    recent_returns: list[float] = dataclasses.field(default_factory=list)
    recent_lengths: list[int] = dataclasses.field(default_factory=list)
    progress_remaining: float = 1.0
    """Share of the learning rate that a linear schedule left to the last update."""
    annealing: float = 1.0
    """That share over the share of the budget that is left: 1, unless the budget changed on the way."""
    budget_used: float | None = None
    """Share of the budget, when this was saved; another when it is loaded: the budget has changed. None: not known."""
    tickets: int = 0
    """Rollouts begun; what is flown next is derived from it, so that a run that goes on sees new episodes."""
    unlearned: list[int] = dataclasses.field(default_factory=list)
    """Those of them, whole episodes, that are to be flown again; see Fleet.unlearned."""

    @property
    def mean_return(self) -> float:
        """Mean return of the last window of episodes; NaN before the first."""
        return _mean(self.recent_returns)

    @property
    def spent(self) -> tuple[int, int, float, int]:
        """What ``StopConfig.progress`` takes: steps, episodes, seconds, updates."""
        return self.total_timesteps, self.episodes, self.seconds, self.updates

    @property
    def improved(self) -> bool | None:
        """Whether some window was clearly better than the first; None: there were not two of them yet."""
        if self.first_mean_return is None or self.episodes < 2 * len(self.recent_returns):
            return None
        return self.best_mean_return > self.first_mean_return + _STANDARD_ERRORS * self.first_standard_error

    def add(self, report: RolloutReport, window: int) -> None:
        """Count a rollout that was learned from; ``window`` episodes are kept for running means."""
        self.total_timesteps += report.num_steps
        self.episodes += len(report.episode_returns)
        was_full = len(self.recent_returns) == window
        self.recent_returns = (self.recent_returns + report.episode_returns.tolist())[-window:]
        self.recent_lengths = (self.recent_lengths + report.episode_lengths.tolist())[-window:]
        if len(self.recent_returns) == window:
            self.best_mean_return = max(self.best_mean_return, self.mean_return)
            if not was_full:
                self.first_mean_return = self.mean_return
                self.first_standard_error = statistics.pstdev(self.recent_returns) / math.sqrt(window)

    def row(self) -> dict[str, float]:
        """Their part of a row of the log."""
        return {
            "rollout/ep_rew_mean": self.mean_return,
            "rollout/ep_len_mean": _mean(self.recent_lengths),
            "rollout/best_ep_rew_mean": self.best_mean_return,
            "time/total_timesteps": self.total_timesteps,
            "time/episodes": self.episodes,
            "time/time_elapsed": self.seconds,
            "time/fps": self.total_timesteps / max(self.seconds, 1e-9),
        }


def _mean(values: list[float] | list[int]) -> float:
    return statistics.fmean(values) if values else math.nan
