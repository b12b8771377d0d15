"""What can go wrong with a cluster: each fault is a function that strikes, and puts right what a person would.

Its bound is how long everything may take to be well again after that; see ``recovery``.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from tests.cluster.machines import REPOSITORY, Machine
from tests.cluster.nodes import HEAD, unplug
from tests.cluster.soak.clock import can_step, step
from tests.cluster.soak.memory import can_squeeze, squeezed
from tests.cluster.soak.site import Site

_AWAY = (10.0, 30.0)
"""Seconds for which something is away, slow, full or wrong."""

_NOTICE = 45.0
"""Seconds from a spot machine's notice to its end."""
_SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    strike: Callable[[Site, random.Random], str]
    """Returns what it did it to."""
    bound: float
    """Seconds until all is well, on two cores that others use too."""
    ends: frozenset[str]
    """What may end by it: driver, learner, serving."""


FAULTS: dict[str, Fault] = {}


def _fault(
    name: str, bound: float, *ends: str
) -> Callable[[Callable[[Site, random.Random], str]], Callable[[Site, random.Random], str]]:
    def register(strike: Callable[[Site, random.Random], str]) -> Callable[[Site, random.Random], str]:
        FAULTS[name] = Fault(name, strike, bound, frozenset(ends))
        return strike

    return register


def possible() -> list[str]:
    """The faults that can strike on this machine."""
    can = {"clock stepped": can_step(), "memory squeezed": can_squeeze()}
    return [name for name in FAULTS if can.get(name, True)]


def _kill(machine: Machine, rng: random.Random, *words: str) -> str:
    processes = machine.processes(*words)
    if not processes:
        return "there was none"
    victim = rng.choice(processes)
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()
    return f"{machine.name}, process {victim.pid}"


@_fault("actor killed", 150)
def _(site: Site, rng: random.Random) -> str:
    return _kill(rng.choice(site.actors), rng, "ray::RolloutActor")


@_fault("learner killed", 200, "learner")
def _(site: Site, rng: random.Random) -> str:
    return _kill(site.learner, rng, "ray::LearnerActor")


@_fault("driver killed", 250, "driver", "learner")
def _(site: Site, rng: random.Random) -> str:
    return _kill(site.learner, rng, "-m learner.train")


@_fault("replica killed", 150)
def _(site: Site, rng: random.Random) -> str:
    return _kill(site.service, rng, "ray::ServeReplica")


@_fault("HAProxy killed", 150)
def _(site: Site, rng: random.Random) -> str:
    return _kill(site.service, rng, "haproxy.cfg")


def _silence(site: Site, rng: random.Random, least: float, most: float) -> str:
    """Cut a machine with actors off for so many seconds."""
    machine = rng.choice(site.actors)
    site.network.cut(machine)
    time.sleep(rng.uniform(least, most))
    site.network.mend(machine)
    return machine.name


@_fault("actors' machine silent for a moment", 200)
def _(site: Site, rng: random.Random) -> str:
    return _silence(site, rng, 2, 8)


@_fault("actors' machine silent until it is lost", 300)
def _(site: Site, rng: random.Random) -> str:
    return _silence(site, rng, 60, 80)


@_fault("actors' machine lost, another comes", 300)
def _(site: Site, rng: random.Random) -> str:
    machine = rng.choice(site.actors)
    site.lose(machine)
    time.sleep(rng.uniform(*_AWAY))
    return f"{machine.name}, {site.add_actors().name}"


@_fault("actors' machine more, then switched off", 300)
def _(site: Site, rng: random.Random) -> str:
    machine = site.add_actors()
    time.sleep(rng.uniform(30, 60))
    raylets = machine.processes("/raylet")
    for process in raylets:
        process.terminate()  # as a machine does that is told to end
    psutil.wait_procs(raylets, timeout=10)
    site.lose(machine)
    return machine.name


@_fault("actors' machine taken after a notice, another comes", 300)
def _(site: Site, rng: random.Random) -> str:
    machine = rng.choice(site.actors)
    machine.start([sys.executable, "-m", "tests.cluster.metadata", str(_NOTICE)], **_SILENT)
    machine.start([sys.executable, REPOSITORY / "cluster/spot_notice.py", "aws", f"{HEAD}:6379"], **_SILENT)
    time.sleep(_NOTICE)
    site.lose(machine)
    return f"{machine.name}, {site.add_actors().name}"


@_fault("learner's machine lost", 400, "driver", "learner")
def _(site: Site, rng: random.Random) -> str:
    unplug(site.learner)
    time.sleep(rng.uniform(*_AWAY))
    site.start_learner()
    return site.learner.name


@_fault("head lost, Redis stays", 400)
def _(site: Site, rng: random.Random) -> str:
    site.head.kill()
    time.sleep(rng.uniform(*_AWAY))
    site.start_head()
    site.await_joined(site.head)  # what flies and learns does so without it
    return site.head.name


def _bucket(site: Site, rng: random.Random, mode: str) -> str:
    site.link.mode = mode
    time.sleep(rng.uniform(*_AWAY))
    site.link.mode = "open"
    return f"for writing and reading: {mode}"


@_fault("storage cut", 150)
def _(site: Site, rng: random.Random) -> str:
    return _bucket(site, rng, "cut")


@_fault("storage silent", 150)
def _(site: Site, rng: random.Random) -> str:
    return _bucket(site, rng, "stalled")


@_fault("storage slow", 150)
def _(site: Site, rng: random.Random) -> str:
    return _bucket(site, rng, "slow")


@_fault("storage full", 150)
def _(site: Site, rng: random.Random) -> str:
    return _bucket(site, rng, "full")


@_fault("clock stepped", 150)
def _(site: Site, rng: random.Random) -> str:
    clock = rng.choice(site.clocks())
    seconds = rng.uniform(5, 30) * rng.choice((-1, 1))  # a raylet's timers stand still for so long
    step(clock, seconds)
    time.sleep(rng.uniform(*_AWAY))
    step(clock, 0)
    return f"{clock.stem}, {seconds:+.0f} s and back"


@_fault("memory squeezed", 300)
def _(site: Site, rng: random.Random) -> str:
    machine = rng.choice(site.actors)
    with squeezed(machine) as left:
        time.sleep(rng.uniform(*_AWAY))
    return f"{machine.name}, to {left / 1e6:.0f} MB"
