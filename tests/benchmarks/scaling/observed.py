"""One run of the real Trainer, watched from its callbacks."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ray

from learner.run.callback import Callback
from learner.run.config import TrainConfig
from learner.run.result import Result
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from tests.benchmarks.scaling.cluster import Memory
from tests.benchmarks.scaling.simulated import Flight, SimulatedActor, SimulatedLearner

QUANTILES = {"median": 0.5, "p99": 0.99, "most": 1.0}
SETTLE_SECONDS = 5.0
"""Between the start of the last actor and the first figure."""


@contextlib.contextmanager
def simulation(think_seconds: float, slowness: float = 1.0, real_actors: bool = False) -> Iterator[None]:
    """Trainers started in here fly and learn with the simulated classes: the one place that reaches into them."""

    class LearnerActor(SimulatedLearner):
        def __init__(self) -> None:
            super().__init__(think_seconds, slowness)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("learner.run.learner_group.LearnerActor", LearnerActor))
        if not real_actors:
            stack.enter_context(mock.patch("actors.actor_pool.RolloutActor", SimulatedActor))
        yield


@dataclasses.dataclass
class Mark:
    """Where a run is."""

    steps: float
    seconds: float = dataclasses.field(default_factory=time.monotonic)
    driver_cpu: float = dataclasses.field(default_factory=time.process_time)
    loop_cpu: float = dataclasses.field(default_factory=time.thread_time)


class Observer(Callback):
    """Measures from when all actors fly, for ``seconds``; then ends the run."""

    def __init__(self, actors: int, seconds: float) -> None:
        self._actors, self._seconds = actors, seconds
        self._full: float | None = None
        self.begin: Mark | None = None
        self.end: Mark | None = None
        self.rows: list[dict[str, float]] = []
        self.memory: list[dict[str, float]] = []
        self.flights: list[list[Flight]] = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """The clock runs from update to update: work of an update that is under way counts for neither side."""
        now = time.monotonic()
        if self.end is not None or metrics["rollout/actors"] < self._actors:
            return
        self._full = self._full or now
        if self.begin is None:
            if now - self._full >= SETTLE_SECONDS:
                self._memory, self._next_sample = Memory(), now
                self.begin = Mark(metrics["time/total_timesteps"])
            return
        self.rows.append({**metrics, "version": trainer.version})
        if now >= self._next_sample:
            self.memory.append({"seconds": now - self.begin.seconds, **self._memory.megabytes()})
            self._next_sample += max(1.0, self._seconds / 60)
        if now - self.begin.seconds >= self._seconds:
            self.end = Mark(metrics["time/total_timesteps"])
            trainer.stop("measured")

    def on_end(self, trainer: Trainer, result: Result) -> None:
        """Ask the actors what they flew, while they live."""
        assert trainer.fleet is not None
        if self.begin is None:
            return
        self.actor_megabytes = self._memory.actor_megabytes()
        calls = [slot.actor.flights.remote() for slot in trainer.fleet._pool.slots if hasattr(slot.actor, "flights")]
        self.flights = ray.get(calls)


def observe(config: TrainConfig, run_dir: Path, seconds: float, spares: Spares) -> tuple[dict[str, Any], Observer]:
    """Train with the simulated update for ``seconds`` and give the figures.

    Raises:
        RuntimeError: the run ended before it was measured.
    """
    assert config.fleet.actors != "auto"
    observer = Observer(config.fleet.actors, seconds)
    spares.learners.clear()  # a learner knows how long its actors are to think
    Trainer(config, run_dir, callbacks=[observer], spares=spares, command="scaling benchmark").run()
    ray.kill(spares.learners.pop())
    begin, end, rows = observer.begin, observer.end, observer.rows
    if begin is None or end is None:
        raise RuntimeError(f"the run ended before {config.fleet.actors} actors flew for {seconds:g} s")
    elapsed = end.seconds - begin.seconds
    batches = len(rows) * config.fleet.rollouts_per_update
    lags: collections.Counter[int] = collections.Counter()
    for row in rows:
        lags.update({int(name.removeprefix("lag/")): int(count) for name, count in row.items() if name[:4] == "lag/"})
    figures = {
        "actors": config.fleet.actors,
        "rollouts_per_update": config.fleet.rollouts_per_update,
        "max_policy_lag": config.fleet.max_policy_lag,
        "seconds": elapsed,
        "batches": batches,
        "batches_per_second": batches / elapsed,
        "steps_per_second": (end.steps - begin.steps) / elapsed,
        "driver_ms_per_batch": (end.driver_cpu - begin.driver_cpu) / batches * 1e3,
        "loop_ms_per_batch": (end.loop_cpu - begin.loop_cpu) / batches * 1e3,
        "learner_ms_per_batch": statistics.fmean(row["time/learner_busy"] for row in rows)
        / config.fleet.rollouts_per_update
        * 1e3,
        "rollouts_per_second_of_another": others(observer),
        "turnaround_ms": turnaround(observer),
        "actor_megabytes": observer.actor_megabytes,
        "dropped": rows[-1]["rollout/dropped"] - rows[0]["rollout/dropped"],
        "restarts": rows[-1]["rollout/actor_restarts"],
        "lags": {str(lag): lags[lag] for lag in sorted(lags)},
        "memory": observer.memory,
    }
    return figures, observer


def others(observer: Observer) -> float:
    """Rollouts a second of each actor but the first, which may be a slow one; 0 of real actors, which keep no log."""
    assert observer.begin is not None
    assert observer.end is not None
    begin, end = observer.begin.seconds, observer.end.seconds
    landed = [sum(begin < flight.ended <= end for flight in flights) for flights in observer.flights[1:]]
    return sum(landed) / len(landed) / (end - begin) if landed else 0.0


def turnaround(observer: Observer) -> dict[str, float]:
    """Milliseconds between an actor's rollouts, in which its batch is stored and the driver tells it to go on."""
    assert observer.begin is not None
    assert observer.end is not None
    gaps = [
        (later.started - earlier.ended) * 1e3
        for flights in observer.flights
        for earlier, later in itertools.pairwise(flights)
        if observer.begin.seconds <= earlier.ended <= observer.end.seconds
    ]
    return {name: float(np.quantile(gaps, share)) for name, share in QUANTILES.items()} if gaps else {}


def broadcast(observer: Observer, think_seconds: float) -> dict[str, float]:
    """How long after a policy was made an actor sets out with it or with a newer one, in rollouts, over all actors.

    An actor that had just set out when the policy was made needs one rollout. ``old_starts``: how often at most an
    actor set out with an older policy after this one was made, before the driver had heard of it.
    """
    delays, old_starts = [], []
    for row in observer.rows[:-1]:
        version, made = int(row["version"]), row["time/made"]
        for flights in observer.flights:
            after = [flight for flight in flights if flight.started >= made]
            first = next((index for index, flight in enumerate(after) if flight.version >= version), None)
            if first is None:
                continue  # the run ended before
            delays.append((after[first].started - made) / think_seconds)
            old_starts.append(first)
    return {
        **{name: float(np.quantile(delays, share)) for name, share in QUANTILES.items()},
        "old_starts": max(old_starts),
        "share_with_an_old_start": float(np.mean(np.array(old_starts) > 0)),
    }
