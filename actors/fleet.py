"""The fleet: the Ray actors that fly, and the rules by which their rollouts reach the learner.

Three rules keep it honest:

- *Bounded in flight.* At most ``rollouts_per_update × (1 + max_policy_lag)`` rollouts are in the air, waiting or being
  learned from, so a slow learner slows the actors and memory stays flat.
- *Bounded lag.* No batch is learned from that was flown more than ``max_policy_lag`` versions ago. An update waits for
  a rollout that it would make too old. Fragments of a straggler are not waited for: each is as many steps as any
  other's, whatever happens in them, and what comes too late is dropped, and counted. Whole episodes are always waited
  for, since the long ones take long, and who drops those learns from short ones.
- *Nothing is lost twice.* A dead actor is replaced and its rollout flown again by another; whole episodes from the same
  seeds, since long ones are lost more often. An actor whose policy was lost with the learner flies on with another one,
  and so do rollouts of policies that were not lost.

A rollout has a ticket, counted from the beginning of the run. The seeds of whole episodes are derived from it: whoever
flies them, before or after a resume, they are the same. An actor's fragments go on from one to the next; their
seeds are derived from the ticket at which the actor began, which no other had.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import logging
import math
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeGuard

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.actor import Recorder, RolloutActor, RolloutReport
from actors.errors import EnvironmentFault, NonFiniteError, PolicyLostError, UserError
from actors.registration import registration
from actors.rollout import RolloutConfig
from actors.room import Claim, Room, draining, on_nodes
from actors.score import Score
from actors.seeds import sub_seed
from actors.waiting import PATIENT_SECONDS, wishes

log = logging.getLogger("touchdown")

_STRAGGLER = 3.0
"""An actor that needs this many times the median time for a rollout is not waited for."""
_LOOK_SECONDS = 2.0
"""Between two looks at the cluster."""
_FINISH_SECONDS = 60.0
"""That actors have, before they end, to write what is recorded."""
_MAX_DEATHS = 30
"""An actor slot that dies this often without landing a rollout stops the run: something kills it as it starts."""


@dataclasses.dataclass(frozen=True)
class FleetConfig:
    """How many actors fly, where, and how far behind the learner they may be."""

    actors: int | Literal["auto"] = "auto"
    """Actor processes; auto: as many as the update has use for and free CPUs allow, shared with other runs; more as its
    autoscaler starts machines."""
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
    since: float = 0.0
    """When its actor was asked for."""
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
    policy: ray.ObjectRef[Any]
    batch: ray.ObjectRef[Any]
    started: float
    void: bool = False
    """Its policy is no more; what it brings is thrown away."""
    again: bool = False
    """It was lost once; a second time it is given up, since its seeds may be what kills its actor."""


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
        seed: of the run.
        first_ticket: rollouts that the run began before, when it goes on.
        unlearned: those of them that were not learned from; see ``unlearned``.
        recorder: of which each actor has a copy, told of all that it flies; None: nobody keeps it.
        spares: idle actors of an earlier fleet with the same resources, to use before any is started; ``stop`` leaves
            this fleet's there. None: ``stop`` ends them.
        flies: whether there are rollouts; without, actors start when there is something to evaluate.
    """

    def __init__(
        self,
        env_id: str,
        rollout: RolloutConfig,
        config: FleetConfig,
        seed: int,
        spares: list[Any] | None = None,
        first_ticket: int = 0,
        unlearned: Sequence[int] = (),
        flies: bool = True,
        recorder: Recorder | None = None,
    ) -> None:
        self.config = config
        self._spares, self._flies = spares, flies
        self.backend: str | None = None
        self.restarts = 0
        self.dropped = 0
        self.flown: collections.Counter[int] = collections.Counter()
        """Steps by slot."""
        self.in_update = 0
        """Rollouts that the learner works on; the Trainer keeps this up to date."""
        self._env_id, self._rollout, self._seed = env_id, rollout, seed
        self.tickets = first_ticket
        """Rollouts begun so far, in the whole run."""
        self._again: list[int] = []
        """Tickets of whole episodes that were lost, as a heap: they are flown before new ones."""
        self._fly_again(unlearned)
        self._registered, self._recorder = registration(env_id), recorder
        self._slots: list[_Slot] = []
        self._starting: dict[ray.ObjectRef[Any], _Slot] = {}
        self._flights: dict[ray.ObjectRef[Any], _Flight] = {}
        self._landed: list[Landed] = []
        self._score: Score | None = None
        self._evaluations: dict[ray.ObjectRef[Any], tuple[_Slot, Score, range]] = {}
        """Parts of a score in the air."""
        self._newest: ray.ObjectRef[Any] | None = None
        """The policy that was launched with last."""
        self._seconds: collections.deque[float] = collections.deque(maxlen=32)
        self._resized = 0.0
        self._room = Room(config.cpus_per_actor, config.actor_labels)
        self._rooms = collections.deque([1], maxlen=2)
        self._looking = threading.Thread()
        self._leaving: set[str] = set()
        """Ids of actors whose node will be taken."""
        self.resize()

    @property
    def size(self) -> int:
        """Actors that are flying or could be."""
        return sum(slot.ready for slot in self._slots)

    @property
    def lacking(self) -> str:
        """Actors that are not there yet, and what each asks of a node, in words; empty: all are."""
        lacking = len(self._slots) - self.size
        if not lacking:
            return ""
        asked = wishes(self.config.cpus_per_actor, "CPU", self.config.actor_labels)
        words = f"{lacking} of {len(self._slots)} actors, each for a node to fly on, with {asked}"
        if self._is_repeatable and lacking < len(self._slots):
            words += "; with max_policy_lag 0 none flies until all can: add nodes, or ask for fewer actors"
        return words

    @property
    def _is_repeatable(self) -> bool:
        return self.config.max_policy_lag == 0

    @property
    def waiting_for(self) -> list[ray.ObjectRef[Any]]:
        """References whose completion ``land`` wants to hear of."""
        return [*self._starting, *self._flights, *self._evaluations]

    def resize(self) -> None:
        """Start or end actors so that their number fits the cluster; looks at most every two seconds."""
        if time.monotonic() - self._resized < _LOOK_SECONDS:
            return
        if not (self._flies or self._slots or self._score):
            return
        self._resized = time.monotonic()
        self._start_look()
        self._let_go()
        wanted = max(self._rooms) if self.config.actors == "auto" else self.config.actors
        if self.config.actors != "auto" and wanted > self.config.max_outstanding and not self._slots:
            log.warning(
                "%d actors asked for, %d used: rollouts_per_update × (1 + max_policy_lag) rollouts can be out at once",
                wanted,
                self.config.max_outstanding,
            )
        wanted = max(1, min(wanted, self.config.max_outstanding))
        staying = [slot for slot in self._slots if not self._leaves(slot)]
        for index in sorted(set(range(wanted)) - {slot.index for slot in self._slots})[: max(0, wanted - len(staying))]:
            self._slots.append(self._fill(_Slot(index, None)))
        staying.sort(key=lambda slot: (not slot.ready, slot.index))  # those that fly stay, if not all can
        self._have_written(staying[wanted:])
        for slot in staying[wanted:]:
            self._abandon(slot)
            self._slots.remove(slot)
        self._slots.sort(key=lambda slot: slot.index)

    def _start_look(self) -> None:
        """Look at the cluster: at once the first time, and then in a thread, since without a head it takes a minute.

        Of the last two looks that counts which saw more room: an actor that is just ending has its CPU still.
        """
        if not self._slots:
            self._look()
        elif not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, daemon=True)
            self._looking.start()

    def _look(self) -> None:
        if self.config.actors == "auto":
            self._rooms.append(self._room.look(Claim(self._held, self.config.max_outstanding)))
        self._leaving = on_nodes([_id(slot) for slot in self._slots], draining())

    def _leaves(self, slot: _Slot) -> bool:
        """Whether its actor's machine will be taken, as Ray was told: it begins nothing more."""
        return _id(slot) in self._leaving

    def _let_go(self) -> None:
        """End actors whose machines will be taken, once what they fly is down; others take their places elsewhere."""
        for slot in [slot for slot in self._slots if self._leaves(slot)]:
            if not slot.in_flight and not self._evaluates(slot):
                log.warning("actor %d leaves a machine that will be taken; another flies on elsewhere", slot.index)
                self._have_written([slot])
                self._abandon(slot)
                self._slots.remove(slot)

    @property
    def _held(self) -> int:
        """Actors that have their CPUs, or will have in a moment; one that has waited long has none."""
        slots = [slot for slot in self._slots if slot.ready or time.monotonic() - slot.since < PATIENT_SECONDS]
        return len(slots) + len(self._spares or [])

    def _fill(self, slot: _Slot) -> _Slot:
        """Put an actor into a slot."""
        options: dict[str, Any] = {"num_cpus": self.config.cpus_per_actor}
        if self.config.actor_labels:
            options["label_selector"] = self.config.actor_labels
        actor_class: Any = ray.remote(RolloutActor).options(**options)
        slot.actor = self._spares.pop() if self._spares else actor_class.remote()
        slot.ready, slot.in_flight, slot.since = False, 0, time.monotonic()
        seed = sub_seed(self._seed, self.tickets, slot.index)
        prepared = slot.actor.prepare.remote(self._env_id, self._rollout, seed, self._registered, self._recorder)
        self._starting[prepared] = slot
        return slot

    def _abandon(self, slot: _Slot) -> None:
        """Kill a slot's actor and forget what it flies, but for the tickets."""
        self._starting = {ref: other for ref, other in self._starting.items() if other is not slot}
        self._fly_again(flight.ticket for flight in self._flights.values() if flight.slot is slot and not flight.void)
        self._flights = {ref: flight for ref, flight in self._flights.items() if flight.slot is not slot}
        for ref, (other, score, part) in list(self._evaluations.items()):
            if other is slot:
                del self._evaluations[ref]
                score.put_back(part)
        ray.kill(slot.actor)

    def launch(self, policy: ray.ObjectRef[Any], version: int) -> None:
        """Start rollouts with this policy wherever the bound on rollouts in flight leaves room."""
        if self._is_repeatable and (self._score or not all(slot.ready for slot in self._slots)):
            return  # which actor flies which rollout must not depend on who started or was done first
        queue = self.config.rollouts_per_update if self._is_repeatable else 1
        self._newest = policy
        while len(self._flights) + len(self._landed) + self.in_update < self.config.max_outstanding:
            able = [slot for slot in self._slots if slot.ready and not self._leaves(slot)]
            idle = [slot for slot in able if slot.in_flight < queue and not self._evaluates(slot)]
            if not idle:
                return
            slot = min(idle, key=lambda slot: (slot.in_flight, slot.index))
            again = bool(self._again)
            ticket = heapq.heappop(self._again) if again else self.tickets
            self.tickets += not again
            seed = sub_seed(self._seed, ticket) if self._whole_episodes else None
            batch, report = slot.actor.collect.options(num_returns=2).remote(policy, seed)
            self._flights[report] = _Flight(slot, ticket, version, policy, batch, time.monotonic(), again=again)
            slot.in_flight += 1

    def evaluate(self, score: Score) -> None:
        """Have the actors fly this score's episodes, beside their rollouts; ``evaluated`` tells when they are down."""
        self._score = score

    @property
    def is_evaluating(self) -> bool:
        """Whether a policy is being evaluated."""
        return self._score is not None

    def evaluated(self) -> Score | None:
        """The score, once its episodes are down or given up; told once."""
        under_way = any(score is self._score for _, score, _ in self._evaluations.values())
        if self._score is None or under_way or self._score.has_parts:
            return None
        score, self._score = self._score, None
        return score

    def _evaluates(self, slot: _Slot) -> bool:
        return any(other is slot for other, *_ in self._evaluations.values())

    def launch_evaluation(self) -> None:
        """Start parts of the evaluation on actors that are free. It goes before rollouts: each actor is soon back."""
        score = self._score
        for slot in self._slots:
            is_free = slot.ready and not slot.in_flight and not self._leaves(slot)
            if score and score.has_parts and is_free and not self._evaluates(slot):
                part = score.next_part()
                ref = slot.actor.evaluate.remote(score.policy, [score.seeds[i] for i in part])
                self._evaluations[ref] = (slot, score, part)

    def land(self, ref: ray.ObjectRef[Any]) -> None:
        """Take note of a reference from ``waiting_for`` that is done.

        Raises:
            PolicyLostError: the newest policy is lost; the actors are well.
            NonFiniteError: an observation, reward or action was not finite.
            UserError: the actor cannot fly this environment as told.
            EnvironmentFault: the environment raised, ``max_failures`` times in a row; carries its traceback.
            RayTaskError: the actor itself did.
        """
        if ref in self._starting:
            slot = self._starting.pop(ref)
        elif ref in self._flights:
            slot = self._flights[ref].slot
        elif ref in self._evaluations:
            slot = self._evaluations[ref][0]
        else:
            return  # flown by an actor that was replaced meanwhile
        flight = self._flights.pop(ref, None)
        try:
            result = ray.get(ref)
        except RayError as error:
            if ref in self._evaluations and _is_of_the_policy(error):
                _, score, _ = self._evaluations.pop(ref)
                self._score = None if score is self._score else self._score
            elif flight and _is_of_the_policy(error):
                slot.in_flight -= 1
                self._fly_again([] if flight.void else [flight.ticket])
                if flight.policy == self._newest and not flight.void:
                    raise PolicyLostError(str(error.cause)) from error
            else:
                self._replace(slot, error, flight)
            return
        if ref in self._evaluations:
            _, score, part = self._evaluations.pop(ref)
            score.add(part, *result)
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

    def _replace(self, slot: _Slot, error: RayError, flight: _Flight | None) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, NonFiniteError | UserError):
            raise cause
        if isinstance(error, RayActorError) or not isinstance(error, RayTaskError):
            slot.deaths += 1
            if slot.deaths >= _MAX_DEATHS:
                raise error
            log.warning("actor %d died; replacing it", slot.index)
            if flight and not (flight.void or flight.again):
                self._fly_again([flight.ticket])
        else:
            slot.failures += 1
            if slot.failures >= self.config.max_failures:
                raise cause if isinstance(cause, EnvironmentFault) else error
            log.warning("actor %d: %s; replacing the actor", slot.index, cause)
            log.debug("%s", error)
        self.restarts += 1
        self._abandon(slot)
        self._fill(slot)

    def take(self, version: int) -> list[Landed]:
        """The rollouts for the update that would make ``version + 1``; empty while they are not all down."""
        oldest = version - self.config.max_policy_lag
        fresh = [landed for landed in self._landed if landed.report.policy_version >= oldest]
        self.dropped += len(self._landed) - len(fresh)
        self._landed = sorted(fresh, key=lambda landed: (landed.report.policy_version, landed.ticket))
        count = self.config.rollouts_per_update
        taken, rest = self._landed[:count], self._landed[count:]
        if len(taken) < count:
            return []
        flying = [
            flight.version for flight in self._flights.values() if not flight.void and not self._straggles(flight)
        ]
        ages = [*flying, *(landed.report.policy_version for landed in rest)]
        for latest in range(oldest, max(version, oldest + 1)):  # those up to it have latest - oldest updates left
            some_fly = any(flown <= latest for flown in flying)
            if some_fly and sum(flown <= latest for flown in ages) > count * (latest - oldest):
                return []
        self._landed = rest
        return taken

    def _straggles(self, flight: _Flight) -> bool:
        if self._whole_episodes or not self._seconds:
            return False
        limit = _STRAGGLER * statistics.median(self._seconds)
        return max(time.monotonic() - flight.started, flight.slot.last_seconds) > limit

    @property
    def unlearned(self) -> list[int]:
        """Tickets of whole episodes that no update has taken: a run that goes on from here flies them first."""
        if not self._whole_episodes:
            return []
        flying = [flight.ticket for flight in self._flights.values() if not flight.void]
        return sorted([*self._again, *flying, *(landed.ticket for landed in self._landed)])

    def go_back(self, tickets: int, unlearned: Iterable[int]) -> None:
        """Fly again, from the same seeds, whatever whole episodes were begun since ``tickets`` or ``unlearned`` were
        noted: what was learned from them is no more. Those that are down or in the air count."""
        self._again.clear()
        self._fly_again({*unlearned, *range(tickets, self.tickets)}.difference(self.unlearned))

    def give_back(self, landed: Iterable[Landed]) -> None:
        """Take rollouts back that were lost before they could be learned from."""
        self._fly_again(rollout.ticket for rollout in landed)

    def _fly_again(self, tickets: Iterable[int]) -> None:
        for ticket in tickets if self._whole_episodes else ():
            heapq.heappush(self._again, ticket)

    @property
    def _whole_episodes(self) -> bool:
        return self._rollout.episodes_per_env is not None

    def forget(self, version: int) -> None:
        """Throw away rollouts, down or in the air, of policies after this version: those are no more."""
        self._landed = [landed for landed in self._landed if landed.report.policy_version <= version]
        self._score = None
        for flight in self._flights.values():
            flight.void |= flight.version > version
        self._newest = None

    def _have_written(self, slots: Sequence[_Slot]) -> None:
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
        self._have_written(self._slots)
        for slot in self._slots:
            if self._spares is not None and slot.ready:
                self._spares.append(slot.actor)
            else:
                self._abandon(slot)
        self._slots.clear()
        self._landed.clear()
        if self.config.actors == "auto" and not self._looking.is_alive():  # one that looks for a lost head goes with it
            self._room.leave()


def _id(slot: _Slot) -> str:
    """The name that Ray has for the actor in a slot, in hexadecimal."""
    return str(slot.actor._actor_id.hex())


def _is_of_the_policy(error: RayError) -> TypeGuard[RayTaskError]:
    """Whether a rollout failed because the one thing that it needs from elsewhere did not come."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    return isinstance(cause, RayError) and not isinstance(cause, RayTaskError)
