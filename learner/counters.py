"""Counters: how far a run is."""

from __future__ import annotations

import dataclasses
import math
import statistics

from actors.actor import RolloutReport


@dataclasses.dataclass
class Counters:
    """How far a run is. Saved with every checkpoint."""

    total_timesteps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    """Since collection began, pauses between runs excluded."""
    best_mean_return: float = -math.inf
    """Best running mean over a full window of episodes."""
    recent_returns: list[float] = dataclasses.field(default_factory=list)
    recent_lengths: list[int] = dataclasses.field(default_factory=list)

    @property
    def mean_return(self) -> float:
        """Mean return of the last window of episodes; NaN before the first."""
        return _mean(self.recent_returns)

    def add(self, report: RolloutReport, window: int) -> None:
        """Count a rollout that was learned from; ``window`` episodes are kept for running means."""
        self.total_timesteps += report.num_steps
        self.episodes += len(report.episode_returns)
        self.recent_returns = (self.recent_returns + report.episode_returns.tolist())[-window:]
        self.recent_lengths = (self.recent_lengths + report.episode_lengths.tolist())[-window:]
        if len(self.recent_returns) == window:
            self.best_mean_return = max(self.best_mean_return, self.mean_return)

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
