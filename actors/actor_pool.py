"""The actors of a fleet: as many as the cluster has room for, replaced where they die, gone from machines that end."""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from actors.actor import Recorder, RolloutActor
from actors.fleet_config import FleetConfig
from actors.registration import registration
from actors.rollout import RolloutConfig
from actors.room import Claim, Room, draining, on_nodes
from actors.seeds import sub_seed
from actors.waiting import PATIENT_SECONDS, wishes

log = logging.getLogger("touchdown")

_LOOK_SECONDS = 2.0
"""Between two looks at the cluster."""
_LAST_LOOK_SECONDS = 1.0
"""That a look which is under way has left when the fleet stops: without a head it takes a minute."""
_FINISH_SECONDS = 60.0
"""That actors have, before they end, to write what is recorded."""


@dataclasses.dataclass
class Slot:
    """A place in the fleet and the actor that holds it now."""

    index: int
    actor: Any = None
    """None: it has left the fleet."""
    ready: bool = False
    since: float = 0.0
    """When its actor was asked for."""
    in_flight: int = 0
    """Rollouts that its actor was told to fly, and that are not down."""
    evaluates: bool = False
    """Whether its actor flies a part of a score."""
    last_seconds: float = 0.0
    failures: int = 0
    deaths: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether its actor flies anything."""
        return self.in_flight > 0 or self.evaluates


class ActorPool:
    """Starts and ends rollout actors; what they fly is the fleet's. Driven by one thread.

    Args:
        env_id: what they fly.
        rollout: one rollout.
        config: of the fleet.
        seed: of the run.
        spares: idle actors of an earlier fleet with the same resources, to use before any is started; ``stop`` leaves
            this one's there. None: ``stop`` ends them.
        recorder: of which each actor has a copy, told of all that it flies; None: nobody keeps it.
    """

    def __init__(
        self,
        env_id: str,
        rollout: RolloutConfig,
        config: FleetConfig,
        seed: int,
        spares: list[Any] | None,
        recorder: Recorder | None,
    ) -> None:
        self._env_id, self._rollout, self._config, self._seed = env_id, rollout, config, seed
        self._spares, self._recorder = spares, recorder
        self._registered = registration(env_id)
        self.slots: list[Slot] = []
        """In the order of their indices."""
        self.starting: dict[ray.ObjectRef[Any], Slot] = {}
        """What tells that an actor is ready, and who simulates there."""
        self._resized = 0.0
        self._room = Room(config.cpus_per_actor, config.actor_labels)
        self._rooms = collections.deque([1], maxlen=2)
        self._looking = threading.Thread()
        self._leaving: set[str] = set()
        """Ids of actors whose node will be taken."""

    @property
    def size(self) -> int:
        """Actors that are flying or could be."""
        return sum(slot.ready for slot in self.slots)

    @property
    def lacking(self) -> str:
        """Actors that are not there yet, and what each asks of a node, in words; empty: all are."""
        lacking = len(self.slots) - self.size
        if not lacking:
            return ""
        asked = wishes(self._config.cpus_per_actor, "CPU", self._config.actor_labels)
        words = f"{lacking} of {len(self.slots)} actors, each for a node to fly on, with {asked}"
        if self._config.is_repeatable and lacking < len(self.slots):
            words += "; with max_policy_lag 0 none flies until all can: add nodes, or ask for fewer actors"
        return words

    def resize(self, tickets: int) -> None:
        """Start or end actors so that their number fits the cluster; looks at most every two seconds.

        Args:
            tickets: rollouts begun so far, which make the seeds of an actor that starts now its own.
        """
        if time.monotonic() - self._resized < _LOOK_SECONDS:
            return
        self._resized = time.monotonic()
        self._start_look()
        self._let_go()
        wanted = max(self._rooms) if self._config.actors == "auto" else self._config.actors
        if self._config.actors != "auto" and wanted > self._config.max_outstanding and not self.slots:
            log.warning(
                "%d actors asked for, %d used: rollouts_per_update × (1 + max_policy_lag) rollouts can be out at once",
                wanted,
                self._config.max_outstanding,
            )
        wanted = max(1, min(wanted, self._config.max_outstanding))
        staying = [slot for slot in self.slots if not self.leaves(slot)]
        for index in sorted(set(range(wanted)) - {slot.index for slot in self.slots})[: max(0, wanted - len(staying))]:
            self.slots.append(self._fill(Slot(index), tickets))
        staying.sort(key=lambda slot: (not slot.ready, slot.index))  # those that fly stay, if not all can
        self._dismiss(staying[wanted:])
        self.slots.sort(key=lambda slot: slot.index)

    def _start_look(self) -> None:
        """Look at the cluster: at once the first time, and then in a thread, since without a head it takes a minute.

        Of the last two looks that counts which saw more room: an actor that is just ending has its CPU still.
        """
        ids = [_id(slot) for slot in self.slots]
        if not ids:
            self._look(ids)
        elif not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, args=(ids,), daemon=True)
            self._looking.start()

    def _look(self, ids: Sequence[str]) -> None:
        if self._config.actors == "auto":
            self._rooms.append(self._room.look(Claim(self._held, self._config.max_outstanding)))
        self._leaving = on_nodes(ids, draining())

    def leaves(self, slot: Slot) -> bool:
        """Whether its actor's machine will be taken, as Ray was told: it begins nothing more."""
        return _id(slot) in self._leaving

    def _let_go(self) -> None:
        """End actors whose machines will be taken, once what they fly is down; others take their places elsewhere."""
        leaving = [slot for slot in self.slots if self.leaves(slot) and not slot.is_busy]
        for slot in leaving:
            log.warning("actor %d leaves a machine that will be taken; another flies on elsewhere", slot.index)
        self._dismiss(leaving)

    def _dismiss(self, slots: Sequence[Slot]) -> None:
        """End actors, once they have written what is recorded of their flights, and give up their places."""
        self._have_written(slots)
        for slot in slots:
            self._end(slot)
            self.slots.remove(slot)

    @property
    def _held(self) -> int:
        """Actors that have their CPUs, or will have in a moment; one that has waited long has none."""
        slots = [slot for slot in self.slots if slot.ready or time.monotonic() - slot.since < PATIENT_SECONDS]
        return len(slots) + len(self._spares or [])

    def _fill(self, slot: Slot, tickets: int) -> Slot:
        """Put an actor into a slot."""
        options: dict[str, Any] = {"num_cpus": self._config.cpus_per_actor}
        if self._config.actor_labels:
            options["label_selector"] = self._config.actor_labels
        actor_class: Any = ray.remote(RolloutActor).options(**options)
        slot.actor = self._spares.pop() if self._spares else actor_class.remote()
        slot.ready, slot.in_flight, slot.evaluates, slot.since = False, 0, False, time.monotonic()
        seed = sub_seed(self._seed, tickets, slot.index)
        prepared = slot.actor.prepare.remote(self._env_id, self._rollout, seed, self._registered, self._recorder)
        self.starting[prepared] = slot
        return slot

    def replace(self, slot: Slot, tickets: int) -> None:
        """End a slot's actor, and start another in its place."""
        self._end(slot)
        self._fill(slot, tickets)

    def _end(self, slot: Slot) -> None:
        self.starting = {ref: other for ref, other in self.starting.items() if other is not slot}
        ray.kill(slot.actor)
        slot.actor, slot.ready = None, False

    def _have_written(self, slots: Sequence[Slot]) -> None:
        """Wait until actors that are about to end have written what is recorded of their flights."""
        finished = [slot.actor.finish.remote() for slot in slots if slot.ready] if self._recorder else []
        done, late = ray.wait(finished, num_returns=len(finished), timeout=_FINISH_SECONDS) if finished else ([], [])
        for ref in done:
            try:
                ray.get(ref)
            except RayError as error:
                log.warning("an actor could not write what it has recorded: %s", error)
        if late:
            log.warning("%d actors did not write what they have recorded within %g s", len(late), _FINISH_SECONDS)

    def stop(self) -> None:
        """End all actors, or keep them as spares; once they have written what is recorded of their flights."""
        self._have_written(self.slots)
        for slot in self.slots:
            if self._spares is not None and slot.ready:
                self._spares.append(slot.actor)
                slot.actor = None
            else:
                self._end(slot)
        self.slots.clear()
        if self._config.actors == "auto":
            if self._looking.is_alive():
                self._looking.join(_LAST_LOOK_SECONDS)
            self._room.leave()


def _id(slot: Slot) -> str:
    """The name that Ray has for the actor in a slot, in hexadecimal."""
    return str(slot.actor._actor_id.hex())
