"""The fleet: the Ray actors that fly, and the rules by which their rollouts reach the learner.

Three rules keep it honest:

- *Bounded in flight.* At most ``rollouts_per_update × (1 + max_policy_lag)`` rollouts are in the air, waiting or being
  learned from, so a slow learner slows the actors and memory stays flat.
- *Bounded lag.* No batch is learned from that was flown more than ``max_policy_lag`` versions ago. An update waits for
  a rollout that it would make too old, unless a straggler flies that one: nobody waits for those, and what they
  bring too late is dropped, and counted.
- *Nothing is lost twice.* A dead actor is replaced and its rollout flown again by another.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import statistics
import threading
import time
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.actor import RolloutActor, RolloutReport
from actors.errors import NonFiniteError, UserError
from actors.rollout import RolloutConfig

log = logging.getLogger("touchdown")

_STRAGGLER = 3.0
"""An actor that needs this many times the median time for a rollout is not waited for."""
_MAX_DEATHS = 30
"""An actor slot that dies this often without landing a rollout stops the run: something kills it as it starts."""


@dataclasses.dataclass(frozen=True)
class FleetConfig:
    """How many actors fly, where, and how far behind the learner they may be."""

    actors: int | Literal["auto"] = "auto"
    """Actor processes; auto: as many as the cluster has CPUs for and the update has use for, growing and shrinking."""
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


@dataclasses.dataclass
class _Slot:
    """A place in the fleet and the actor that holds it now."""

    index: int
    actor: Any
    ready: bool = False
    in_flight: int = 0
    last_seconds: float = 0.0
    failures: int = 0
    deaths: int = 0


@dataclasses.dataclass
class _Flight:
    """A rollout in the air."""

    slot: _Slot
    ticket: int
    version: int
    batch: ray.ObjectRef[Any]
    started: float
    void: bool = False
    """Its policy is no more; what it brings is thrown away."""


@dataclasses.dataclass(frozen=True)
class Landed:
    """A rollout that is down: where its batch is, and what the driver may know of it."""

    ticket: int
    batch: ray.ObjectRef[Any]
    report: RolloutReport


class Fleet:
    """Starts, feeds, replaces and counts rollout actors. Driven by one thread: the Trainer's loop.

    Args:
        env_id: what they fly.
        rollout: one rollout.
        config: the fleet.
        seed: actors count their own seeds up from it.
        spares: idle actors of an earlier fleet with the same resources, to use before any is started; ``stop`` leaves
            this fleet's there. None: ``stop`` ends them.
    """

    def __init__(
        self,
        env_id: str,
        rollout: RolloutConfig,
        config: FleetConfig,
        seed: int,
        spares: list[Any] | None = None,
    ) -> None:
        self.config = config
        self._spares = spares
        self.backend: str | None = None
        self.restarts = 0
        self.dropped = 0
        self.flown: collections.Counter[int] = collections.Counter()
        """Steps by slot."""
        self.in_update = 0
        """Rollouts that the learner works on; the Trainer keeps this up to date."""
        self._env_id, self._rollout, self._seed = env_id, rollout, seed
        self._made = self._tickets = 0
        self._slots: list[_Slot] = []
        self._starting: dict[ray.ObjectRef[Any], _Slot] = {}
        self._flights: dict[ray.ObjectRef[Any], _Flight] = {}
        self._landed: list[Landed] = []
        self._seconds: collections.deque[float] = collections.deque(maxlen=32)
        self._resized = 0.0
        self._last_room = 1
        self._looking = threading.Thread()
        self.resize()

    @property
    def size(self) -> int:
        """Actors that are flying or could be."""
        return sum(slot.ready for slot in self._slots)

    @property
    def waiting_for(self) -> list[ray.ObjectRef[Any]]:
        """References whose completion ``land`` wants to hear of."""
        return [*self._starting, *self._flights]

    def resize(self) -> None:
        """With ``actors="auto"``, follow the cluster; looks at most every two seconds."""
        if time.monotonic() - self._resized < 2:
            return
        self._resized = time.monotonic()
        wanted = self._seen_room() if self.config.actors == "auto" else self.config.actors
        if self.config.actors != "auto" and wanted > self.config.max_outstanding and not self._slots:
            log.warning(
                "%d actors asked for, %d used: rollouts_per_update × (1 + max_policy_lag) rollouts can be out at once",
                wanted,
                self.config.max_outstanding,
            )
        wanted = max(1, min(wanted, self.config.max_outstanding))
        for index in sorted(set(range(wanted)) - {slot.index for slot in self._slots})[
            : max(0, wanted - len(self._slots))
        ]:
            self._slots.append(self._fill(_Slot(index, None)))
        self._slots.sort(key=lambda slot: (not slot.ready, slot.index))  # those that fly stay, if not all can
        for slot in self._slots[wanted:]:
            self._abandon(slot)
        del self._slots[wanted:]
        self._slots.sort(key=lambda slot: slot.index)

    def _seen_room(self) -> int:
        """The room at the last look; a thread of its own looks, because while the head is away that takes a minute."""
        if not self._slots:
            self._look()
        elif not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, daemon=True)
            self._looking.start()
        return self._last_room

    def _look(self) -> None:
        self._last_room = self._room()

    def _room(self) -> int:
        """Actors that the living nodes with our labels have CPUs for."""
        labels = self.config.actor_labels.items()
        nodes = [node for node in ray.nodes() if node["Alive"] and labels <= node.get("Labels", {}).items()]
        return sum(int(node["Resources"].get("CPU", 0) / (self.config.cpus_per_actor or 1)) for node in nodes)

    def _fill(self, slot: _Slot) -> _Slot:
        """Put an actor into a slot."""
        options: dict[str, Any] = {"num_cpus": self.config.cpus_per_actor}
        if self.config.actor_labels:
            options["label_selector"] = self.config.actor_labels
        actor_class: Any = ray.remote(RolloutActor).options(**options)
        slot.actor = self._spares.pop() if self._spares else actor_class.remote()
        slot.ready, slot.in_flight = False, 0
        seed = self._seed * 10_007 + self._made
        self._made += 1
        self._starting[slot.actor.prepare.remote(self._env_id, self._rollout, seed)] = slot
        return slot

    def _abandon(self, slot: _Slot) -> None:
        """Kill a slot's actor and forget what it flies."""
        self._starting = {ref: other for ref, other in self._starting.items() if other is not slot}
        self._flights = {ref: flight for ref, flight in self._flights.items() if flight.slot is not slot}
        ray.kill(slot.actor)

    def launch(self, policy: ray.ObjectRef[Any], version: int) -> None:
        """Start rollouts with this policy wherever the bound on rollouts in flight leaves room."""
        repeatable = self.config.max_policy_lag == 0
        if repeatable and not all(slot.ready for slot in self._slots):
            return  # which actor flies which rollout must not depend on who started first
        queue = self.config.rollouts_per_update if repeatable else 1
        while len(self._flights) + len(self._landed) + self.in_update < self.config.max_outstanding:
            idle = [slot for slot in self._slots if slot.ready and slot.in_flight < queue]
            if not idle:
                return
            slot = min(idle, key=lambda slot: (slot.in_flight, slot.index))
            batch, report = slot.actor.collect.options(num_returns=2).remote(policy)
            self._flights[report] = _Flight(slot, self._tickets, version, batch, time.monotonic())
            self._tickets += 1
            slot.in_flight += 1

    def land(self, ref: ray.ObjectRef[Any]) -> None:
        """Take note of a reference from ``waiting_for`` that is done.

        Raises:
            NonFiniteError: an observation, reward or action was not finite.
            UserError: the actor cannot fly this environment as told.
            RayTaskError: the environment raised, ``max_failures`` times in a row; carries its traceback.
        """
        if ref in self._starting:
            slot = self._starting.pop(ref)
        elif ref in self._flights:
            slot = self._flights[ref].slot
        else:
            return  # flown by an actor that was replaced meanwhile
        flight = self._flights.pop(ref, None)
        try:
            result = ray.get(ref)
        except RayError as error:
            self._replace(slot, error)
            return
        if flight is None:
            self.backend, slot.ready = result, True
            return
        slot.in_flight -= 1
        slot.failures = slot.deaths = 0
        slot.last_seconds = result.seconds
        self.flown[slot.index] += result.num_steps
        self._seconds.append(result.seconds)
        if not flight.void:
            self._landed.append(Landed(flight.ticket, flight.batch, result))

    def _replace(self, slot: _Slot, error: RayError) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, NonFiniteError | UserError):
            raise cause
        lost = isinstance(cause, RayError) and not isinstance(cause, RayTaskError)  # the policy, with its node
        if isinstance(error, RayActorError) or not isinstance(error, RayTaskError) or lost:
            slot.deaths += 1
            if slot.deaths >= _MAX_DEATHS:
                raise error
            log.warning("actor %d died; replacing it", slot.index)
        else:
            slot.failures += 1
            if slot.failures >= self.config.max_failures:
                raise error
            log.warning("actor %d: the environment raised %r; replacing the actor", slot.index, cause)
        self.restarts += 1
        self._abandon(slot)
        self._fill(slot)

    def take(self, version: int) -> list[Landed]:
        """The rollouts for the update that would make ``version + 1``; empty while they are not all down."""
        oldest = version - self.config.max_policy_lag
        fresh = [landed for landed in self._landed if landed.report.policy_version >= oldest]
        self.dropped += len(self._landed) - len(fresh)
        self._landed = sorted(fresh, key=lambda landed: landed.ticket)
        count = self.config.rollouts_per_update
        if len(self._landed) < count or any(
            flight.version <= oldest and not flight.void and not self._straggles(flight)
            for flight in self._flights.values()
        ):
            return []
        taken, self._landed = self._landed[:count], self._landed[count:]
        return taken

    def _straggles(self, flight: _Flight) -> bool:
        if not self._seconds:
            return False
        limit = _STRAGGLER * statistics.median(self._seconds)
        return max(time.monotonic() - flight.started, flight.slot.last_seconds) > limit

    def forget(self) -> None:
        """Throw away all rollouts, down or in the air: the policy that flew them is no more."""
        self._landed.clear()
        for flight in self._flights.values():
            flight.void = True

    def stop(self) -> None:
        """End all actors, or keep them as spares."""
        for slot in self._slots:
            if self._spares is not None and slot.ready:
                self._spares.append(slot.actor)
            else:
                self._abandon(slot)
        self._slots.clear()
        self._landed.clear()
