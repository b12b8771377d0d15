"""A night of faults: they strike a site by a schedule, while others watch; and what came of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from actors.errors import UserError
from learner.keeping.policies import find_policy
from learner.keeping.storage import open_storage
from tests.cluster.soak import footprint, rows
from tests.cluster.soak.answers import Answers
from tests.cluster.soak.faults import FAULTS, possible
from tests.cluster.soak.load import Load
from tests.cluster.soak.log_reader import LogReader
from tests.cluster.soak.patience import Patience
from tests.cluster.soak.recovery import lacking
from tests.cluster.soak.schedule import Strike, schedule
from tests.cluster.soak.site import BATCH, RUN, SERVING, TOKEN, Site

log = logging.getLogger("soak")

TARGET = 195.0
"""Mean return of CartPole that counts as solved."""
_COME_UP, _REACH = 400.0, 600.0
"""Seconds in which all must be well at first, and the target be reached at the end."""
_BACK_SECONDS = 60.0
"""Of training that the loss of a learner or driver may cost: checkpoints come every two seconds, or later if busy."""
_PAUSE_SHARE = 0.8
"""Of the time that storage is away: training that stood still for so long waited for it."""
_AFTER = 30.0
"""Seconds after a fault is over in which what it explains may still be seen."""
_SAMPLES, _LOOKS, _POLICIES = 10.0, 3.0, 0.3
"""Seconds between samples of processes, looks at the log, and looks for a policy."""


@dataclass
class Event:
    """A strike, and how it was answered; moments in seconds since the night began."""

    faults: tuple[str, ...]
    struck: float
    seed: int
    what: str = ""
    healed: float = 0.0
    """When what a person would put right was."""
    well: float | None = None
    took: float = 0.0
    """Seconds from ``healed`` to ``well``, or until it was given up, as a machine with time counts them."""
    bound: float = 0.0
    """Of them, at most."""
    missing: str = ""
    """What was not well at the bound."""


@dataclass
class Night:
    """What was seen of a night."""

    seed: int
    minutes: float
    events: list[Event] = field(default_factory=list)
    complaints: list[tuple[float, str]] = field(default_factory=list)
    """Moment, and what was wrong then."""
    updates: list[tuple[float, int, int]] = field(default_factory=list)
    """Moment, updates in the log, actors that fly."""
    versions: list[tuple[float, int]] = field(default_factory=list)
    """Moment, version served."""
    loads: list[tuple[float, float]] = field(default_factory=list)
    """Moment, processes that want a CPU."""
    samples: list[footprint.Sample] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """Moment, seconds of each request."""
    figures: dict[str, float] = field(default_factory=dict)


class Watch:
    """Looks at a site all the time, in threads, and writes down what it sees."""

    def __init__(self, site: Site, night: Night, answers: Answers, load: Load) -> None:
        self.rows: list[dict[str, Any]] = []
        self._site, self._night, self._answers, self._load = site, night, answers, load
        self._began = time.monotonic()
        self._reader = LogReader(open_storage(RUN))
        self._seen: tuple[int, bytes] = (-1, b"")
        self._broken = False
        self._stop = threading.Event()
        looks = ((self._look_at_log, _LOOKS), (self._look_at_policy, _POLICIES), (self._sample, _SAMPLES))
        self._threads = [threading.Thread(target=self._repeat, args=look, daemon=True) for look in looks]
        for thread in self._threads:
            thread.start()

    @property
    def now(self) -> float:
        """Seconds since the night began."""
        return time.monotonic() - self._began

    def await_look(self) -> None:
        """Until the log has been looked at again; at most a minute, since it may have gone."""
        looks, deadline = len(self._night.updates), time.monotonic() + 60
        while len(self._night.updates) == looks and time.monotonic() < deadline:
            time.sleep(0.1)

    def complain(self, what: str) -> None:
        """Write down what is wrong."""
        log.warning("%.0f s: %s", self.now, what)
        self._night.complaints.append((self.now, what))

    def _repeat(self, look: Callable[[], None], seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                look()
            except Exception as error:  # a watch that fails in silence would have seen nothing wrong
                log.exception("the watch itself")
                self.complain(f"the watch itself: {type(error).__name__}: {error}")
                return

    def _look_at_log(self) -> None:
        began = time.monotonic()
        try:
            found = self._reader.rows()
        except (OSError, ValueError):  # a part went while it was read
            return
        if not found:
            return
        wrong = rows.complaints(found, BATCH)
        if wrong and self._broken:  # seen twice: it was not being rewritten
            self.complain("; ".join(wrong[:3]))
        self._broken = bool(wrong)
        back = rows.went_back(self.rows, found)
        if back and not self._explained({"driver", "learner"}):
            self.complain(f"the log went back by {back:.1f} s, and neither driver nor learner was lost")
        elif back > _BACK_SECONDS + self._storage_away():
            self.complain(f"the loss of a learner or a driver cost {back:.0f} s")
        self.rows = found
        self._night.updates.append((self.now, len(found), int(found[-1]["rollout/actors"])))
        if self._load.requests:
            self._night.versions.append((self.now, self._load.requests[-1].version))
        self._night.loads.append((self.now, os.getloadavg()[0]))
        self._stop.wait(9 * (time.monotonic() - began))  # a long log is looked at less often

    def _explained(self, what: set[str]) -> bool:
        """Whether a fault that is not long over ends one of these."""
        return any(
            what & FAULTS[fault].ends and self.now - (event.well or self.now) < _AFTER
            for event in self._night.events
            for fault in event.faults
        )

    def _storage_away(self) -> float:
        """Seconds that storage was away, in faults not long over."""
        return sum(
            (event.healed or self.now) - event.struck
            for event in self._night.events
            if any(fault.startswith("storage") for fault in event.faults)
            and self.now - (event.well or self.now) < _AFTER
        )

    def _look_at_policy(self) -> None:
        try:
            policy = find_policy(RUN)
        except (OSError, UserError):  # it is just being written
            return
        seen = policy.spec.version, policy.weights["b0"].tobytes()
        if seen != self._seen:
            self._seen = seen
            self._answers.know(policy)
            self._answers.judge_unknown()

    def _sample(self) -> None:
        self._night.samples += footprint.sample(self._site.machines(), self.now, time.time())

    def check_ends(self) -> None:
        """Whether each end of a program has a fault that explains it."""
        for supervised in (self._site.driver, self._site.serving):
            for end in supervised.ends:
                at = end.at - self._began
                explained = at < 0 or any(
                    supervised.name in FAULTS[fault].ends and event.struck <= at <= (event.well or self.now) + _AFTER
                    for event in self._night.events
                    for fault in event.faults
                )
                if not explained:
                    self.complain(f"{end.name} ended at {at:.0f} s, status {end.status}: {end.said[-600:]}")

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def spend(site: Site, seed: int, minutes: float, only: list[str] | None = None) -> Night:
    """Let faults strike for so long, and then have the run reach its target.

    Args:
        site: up, or coming up.
        seed: of the schedule.
        minutes: of faults.
        only: these alone; None: all that can strike here.
    """
    night, answers = Night(seed, minutes), Answers()
    load = Load(SERVING, TOKEN, answers)
    watch = Watch(site, night, answers, load)
    pool = ThreadPoolExecutor(len(FAULTS))  # of the whole night: a machine ends with the thread that switched it on
    try:
        missing, _ = _await_well(site, watch, load, 0, -1, _COME_UP)
        if missing:
            watch.complain(f"it never came up: {missing}")
            return night
        log.info("all is well after %.0f s", watch.now)
        end = time.monotonic() + 60 * minutes
        for strike in schedule(only or possible(), seed):
            time.sleep(strike.pause)
            if time.monotonic() > end:
                break
            if not _strike(site, watch, load, night, strike, pool):
                break  # what follows would be the same complaint again and again
        log.info("the target")
        if not site.reach_target(TARGET, _REACH):
            watch.complain(f"the run did not reach {TARGET:g} within {_REACH:.0f} s after the night")
    finally:
        load.stop()
        watch.stop()
        pool.shutdown()
    _conclude(site, watch, load, night, answers)
    return night


def _strike(site: Site, watch: Watch, load: Load, night: Night, strike: Strike, pool: ThreadPoolExecutor) -> bool:
    """Strike, and wait until all is well; whether it is."""
    updates = len(watch.rows)
    event = Event(strike.faults, watch.now, strike.seed, bound=sum(FAULTS[name].bound for name in strike.faults))
    night.events.append(event)
    log.info("%.0f s: %s", watch.now, " and ".join(strike.faults))
    rng = random.Random(strike.seed)
    struck = [pool.submit(FAULTS[name].strike, site, random.Random(rng.random())) for name in strike.faults]
    event.what = "; ".join(it.result() for it in struck)
    event.healed = watch.now
    watch.await_look()  # what the log had before says nothing of now
    version = load.requests[-1].version
    event.missing, event.took = _await_well(site, watch, load, len(watch.rows), version, event.bound)
    if event.missing:
        watch.complain(f"{' and '.join(strike.faults)}: after {event.bound:.0f} s {event.missing}")
        return False
    event.well = watch.now
    pause = rows.longest_pause(watch.rows, updates)
    if all(name.startswith("storage") for name in strike.faults) and pause > _PAUSE_SHARE * (
        event.healed - event.struck
    ):
        watch.complain(f"{event.what}: training stood still for {pause:.0f} s")
    log.info("%.0f s: well after %.0f s (%s)", watch.now, event.took, event.what)
    return True


def _await_well(site: Site, watch: Watch, load: Load, updates: int, version: int, bound: float) -> tuple[str, float]:
    """What is not well after so many patient seconds, if something is not, and how many they were."""
    patience = Patience()
    while missing := lacking(watch.rows, load.requests, updates, version, len(site.actors)):
        if patience.look() > bound:
            break
        time.sleep(0.5)
    return missing, patience.seconds


def _conclude(site: Site, watch: Watch, load: Load, night: Night, answers: Answers) -> None:
    """What can be said only at the end."""
    watch.check_ends()
    answers.judge_unknown()
    for what in (*dict.fromkeys(load.failed), *answers.wrong[:5], *footprint.complaints(night.samples)):
        watch.complain(what)
    night.latencies = [(it.at - watch._began, it.seconds) for it in load.requests]
    night.figures = {
        "updates": len(watch.rows),
        "requests": len(load.requests),
        "answers right": answers.right,
        "answers wrong": len(answers.wrong),
        "answers of versions not seen": len(answers.unknown),
        "requests failed": len(load.failed),
        "longest request, s": max((it.seconds for it in load.requests), default=0.0),
    }


def as_json(night: Night) -> dict[str, Any]:
    """All but the samples, of which there are too many."""
    told = dataclasses.asdict(night)
    del told["samples"], told["latencies"]
    return told
