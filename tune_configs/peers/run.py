"""A peer's run in the form that our own runs have: its budget, its clock and its log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from actors.seeds import derive
from learner.keeping.background_writer import PATIENCE, BackgroundWriter
from learner.keeping.metrics_log import MetricsLog
from learner.keeping.storage import Storage
from learner.run.config import TrainConfig
from learner.run.counters import Counters

ROW_STEPS = 200
"""Environment steps between rows of the log of a peer that learns after every few; RLlib's ε follows no faster."""


def peer_seed(seed: int) -> int:
    """What a peer counts up from for its environments, so that runs of neighbouring seeds share none."""
    return derive(seed, 1)[0]


class PeerRun:
    """A peer's log and clock, in the form that our own runs have. ``close`` ends it.

    Args:
        config: its environment, seed and budget.
        storage: the run's directory, for metrics.jsonl and TensorBoard events.
        on_row: told of every row, as ``Callback.on_update`` is.
    """

    def __init__(
        self, config: TrainConfig, storage: Storage, on_row: Callable[[Counters, dict[str, float]], None]
    ) -> None:
        self.config = config
        self.counters = Counters()
        self._log = MetricsLog(storage, timesteps=-1)  # rows of a run that was cut short do not count
        self._writer = BackgroundWriter(
            str(storage)
        )  # as our own runs have: a peer's clock must not wait for the storage either
        self._on_row = on_row
        self._began = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the budget that is used up as of the last row, from 0 to 1."""
        counters = self.counters
        return self.config.stop.progress(counters.total_timesteps, counters.episodes, counters.seconds)

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.progress >= 1

    def start(self) -> None:
        """Begin to count: the next thing that happens is the first environment step."""
        self._began = time.monotonic()

    def record(self, steps: int, episodes: int, returns: Sequence[float], train: Mapping[str, float]) -> None:
        """Note one finished iteration: totals so far, returns of the last episodes at most, and training metrics."""
        counters, window = self.counters, self.config.stop.window
        counters.seconds = time.monotonic() - self._began
        counters.total_timesteps, counters.episodes = steps, episodes
        counters.recent_returns = [float(value) for value in returns][-window:]
        mean = float(np.mean(counters.recent_returns)) if counters.recent_returns else math.nan
        if len(counters.recent_returns) == window:
            counters.best_mean_return = max(counters.best_mean_return, mean)
        row = {
            "rollout/ep_rew_mean": mean,
            "rollout/best_ep_rew_mean": counters.best_mean_return,
            "time/total_timesteps": steps,
            "time/episodes": episodes,
            "time/time_elapsed": counters.seconds,
            "time/fps": steps / max(counters.seconds, 1e-9),
            **{f"train/{name}": float(value) for name, value in train.items()},
        }
        self._log.write(row)
        self._writer.submit("metrics", self._log.flush)
        self._on_row(counters, row)

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: the storage did not take it for minutes.
        """
        self._writer.flush(PATIENCE)

    def close(self) -> None:
        """End; what is not written stays unwritten."""
        self._writer.close()
