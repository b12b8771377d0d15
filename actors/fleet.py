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
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.actor import Recorder, RolloutReport
from actors.actor_pool import ActorPool, Slot
from actors.errors import EnvironmentFault, NonFiniteError, PolicyLostError, UserError
from actors.fleet_config import FleetConfig
from actors.rollout import RolloutConfig
from actors.score import Score
from actors.seeds import sub_seed

log = logging.getLogger("touchdown")

_STRAGGLER = 3.0
"""An actor that needs this many times the median time for a rollout is not waited for."""
_MAX_DEATHS, _MAX_EARLY_DEATHS = 30, 5
"""An actor slot that dies this often without landing a rollout stops the run: something kills it as it starts. Where no
rollout of any has ever landed it is what it flies."""


@dataclasses.dataclass
class _Flight:
    """A rollout in the air."""

    slot: Slot
    actor: Any
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
class _Part:
    """A part of a score in the air."""

    slot: Slot
    actor: Any
    score: Score
    episodes: range


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
        self.config, self._flies = config, flies
        self.backend: str | None = None
        self.restarts = 0
        self.dropped = 0
        self.flown: collections.Counter[int] = collections.Counter()
        """Steps by slot."""
        self.in_update = 0
        """Rollouts that the learner works on; the Trainer keeps this up to date."""
        self._rollout, self._seed = rollout, seed
        self.tickets = first_ticket
        """Rollouts begun so far, in the whole run."""
        self._again: list[int] = []
        """Tickets of whole episodes that were lost, as a heap: they are flown before new ones."""
        self._fly_again(unlearned)
        self._env_id = env_id
        self._pool = ActorPool(env_id, rollout, config, seed, spares, recorder)
        self._flights: dict[ray.ObjectRef[Any], _Flight] = {}
        self._landed: list[Landed] = []
        self._score: Score | None = None
        self._evaluations: dict[ray.ObjectRef[Any], _Part] = {}
        self._newest: ray.ObjectRef[Any] | None = None
        """The policy that was launched with last."""
        self._seconds: collections.deque[float] = collections.deque(maxlen=32)
        self.resize()

    @property
    def size(self) -> int:
        """Actors that are flying or could be."""
        return self._pool.size

    @property
    def lacking(self) -> str:
        """Actors that are not there yet, and what each asks of a node, in words; empty: all are."""
        return self._pool.lacking

    @property
    def waiting_for(self) -> list[ray.ObjectRef[Any]]:
        """References whose completion ``land`` wants to hear of."""
        return [*self._pool.starting, *self._flights, *self._evaluations]

    def resize(self) -> None:
        """Start or end actors so that their number fits the cluster; looks at most every two seconds."""
        if self._flies or self._pool.slots or self._score:
            self._pool.resize(self.tickets)
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Forget what actors fly that are no more, but for the tickets."""
        for ref, flight in list(self._flights.items()):
            if flight.actor is not flight.slot.actor:
                del self._flights[ref]
                self._fly_again([] if flight.void else [flight.ticket])
        for ref, part in list(self._evaluations.items()):
            if part.actor is not part.slot.actor:
                del self._evaluations[ref]
                part.score.put_back(part.episodes)

    def launch(self, policy: ray.ObjectRef[Any], version: int) -> None:
        """Start rollouts with this policy wherever the bound on rollouts in flight leaves room."""
        if self.config.is_repeatable and (self._score or not all(slot.ready for slot in self._pool.slots)):
            return  # which actor flies which rollout must not depend on who started or was done first
        queue = self.config.rollouts_per_update if self.config.is_repeatable else 1
        self._newest = policy
        while len(self._flights) + len(self._landed) + self.in_update < self.config.max_outstanding:
            able = [slot for slot in self._pool.slots if slot.ready and not self._pool.leaves(slot)]
            idle = [slot for slot in able if slot.in_flight < queue and not slot.evaluates]
            if not idle:
                return
            slot = min(idle, key=lambda slot: (slot.in_flight, slot.index))
            again = bool(self._again)
            ticket = heapq.heappop(self._again) if again else self.tickets
            self.tickets += not again
            seed = sub_seed(self._seed, ticket) if self._whole_episodes else None
            batch, report = slot.actor.collect.options(num_returns=2).remote(policy, seed)
            began = time.monotonic()
            self._flights[report] = _Flight(slot, slot.actor, ticket, version, policy, batch, began, again=again)
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
        under_way = any(part.score is self._score for part in self._evaluations.values())
        if self._score is None or under_way or self._score.has_parts:
            return None
        score, self._score = self._score, None
        return score

    def launch_evaluation(self) -> None:
        """Start parts of the evaluation on actors that are free. It goes before rollouts: each actor is soon back."""
        score = self._score
        for slot in self._pool.slots:
            is_free = slot.ready and not slot.is_busy and not self._pool.leaves(slot)
            if score and score.has_parts and is_free:
                episodes = score.next_part()
                ref = slot.actor.evaluate.remote(score.policy, [score.seeds[i] for i in episodes])
                self._evaluations[ref] = _Part(slot, slot.actor, score, episodes)
                slot.evaluates = True

    def land(self, ref: ray.ObjectRef[Any]) -> None:
        """Take note of a reference from ``waiting_for`` that is done; not of one of an actor that was replaced.

        Raises:
            PolicyLostError: the newest policy is lost; the actors are well.
            NonFiniteError: an observation, reward or action was not finite.
            UserError: the actor cannot fly this environment as told.
            EnvironmentFault: the environment raised, ``max_failures`` times in a row, or ends its process; carries its
                traceback, or what Ray says.
            RayTaskError: the actor itself did.
        """
        if slot := self._pool.starting.pop(ref, None):
            self._land_actor(slot, ref)
        elif part := self._evaluations.pop(ref, None):
            self._land_part(part, ref)
        elif flight := self._flights.pop(ref, None):
            self._land_rollout(flight, ref)

    def _land_actor(self, slot: Slot, ref: ray.ObjectRef[Any]) -> None:
        try:
            self.backend, slot.ready = ray.get(ref), True
        except RayError as error:
            self._replace(slot, error)

    def _land_part(self, part: _Part, ref: ray.ObjectRef[Any]) -> None:
        part.slot.evaluates = False
        try:
            part.score.add(part.episodes, *ray.get(ref))
        except RayError as error:
            if not _is_of_the_policy(error):
                part.score.put_back(part.episodes)
                self._replace(part.slot, error)
            elif part.score is self._score:
                self._score = None

    def _land_rollout(self, flight: _Flight, ref: ray.ObjectRef[Any]) -> None:
        slot = flight.slot
        slot.in_flight -= 1
        try:
            report: RolloutReport = ray.get(ref)
        except RayError as error:
            if not _is_of_the_policy(error):
                self._replace(slot, error, flight)
                return
            self._fly_again([] if flight.void else [flight.ticket])
            if flight.policy == self._newest and not flight.void:
                raise PolicyLostError(str(error.cause)) from error
            return
        slot.failures = slot.deaths = 0
        slot.last_seconds = report.seconds
        self.flown[slot.index] += report.num_steps
        self._seconds.append(report.seconds)
        if not flight.void:
            self._landed.append(Landed(flight.ticket, flight.batch, report))

    def _replace(self, slot: Slot, error: RayError, flight: _Flight | None = None) -> None:
        """Put another actor into a slot whose own has died or raised."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, NonFiniteError | UserError):
            raise cause
        if isinstance(error, RayActorError) or not isinstance(error, RayTaskError):
            slot.deaths += 1
            if slot.deaths >= (_MAX_DEATHS if self.flown else _MAX_EARLY_DEATHS):
                raise EnvironmentFault(
                    f"{self._env_id}: the processes that fly it have died {slot.deaths} times in a row", str(error)
                )
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
        self._pool.replace(slot, self.tickets)
        self._forget_gone()

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

    def stop(self) -> None:
        """End all actors, or keep them as spares; once they have written what is recorded of their flights."""
        self._pool.stop()
        self._forget_gone()
        self._landed.clear()


def _is_of_the_policy(error: RayError) -> TypeGuard[RayTaskError]:
    """Whether a rollout failed because the one thing that it needs from elsewhere did not come."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    return isinstance(cause, RayError) and not isinstance(cause, RayTaskError)
