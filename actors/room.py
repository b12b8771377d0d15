"""How many actors a fleet that takes what is there may have: free CPUs, shared with other runs, and what would come.

Every such fleet notes in the cluster's store (the GCS's) how many actors it has and could use, and all of them divide
the CPUs that others leave: as equally as can be, and nobody gets more than it has use for. Actors that have no CPU yet
are what the autoscaler starts machines for; they go with their run, however it ends, and so does what they ask for. A
standing request (``ray.autoscaler.sdk.request_resources``) would outlive a run that is killed, and keep its machines.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Mapping

import ray
from ray._private.state import actors, available_resources_per_node, state
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put

from actors.growth import Growth

_PREFIX = "touchdown/fleet/"
_SILENT_SECONDS = 60.0
"""After which a fleet whose note did not change is taken for gone."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What one fleet has and wants, in actors."""

    held: int
    wanted: int


class Room:
    """Looks at the cluster for a fleet; calls can take a minute while the head is away.

    Args:
        cpus: of an actor; 0: actors take none, and every CPU has room for one.
        labels: that a node must have.
    """

    def __init__(self, cpus: float, labels: Mapping[str, str]) -> None:
        self._cpus, self._labels = cpus, dict(labels)
        kind = json.dumps([cpus, sorted(self._labels.items())])
        self._prefix = f"{_PREFIX}{kind}/"  # who asks for other CPUs or nodes is none to share with
        self._key = self._prefix + uuid.uuid4().hex
        self._growth = Growth()
        self._looks = 0
        self._lock = threading.Lock()
        self._is_looking = self._has_left = False
        self._seen: dict[str, tuple[bytes, float]] = {}
        """Notes of other fleets, and when they changed."""

    def look(self, mine: Claim) -> int:
        """Actors that the fleet may have now; none once it has left."""
        with self._lock:
            if self._has_left:
                return 0
            self._is_looking = True
        try:
            return self._look(mine)
        finally:
            with self._lock:
                self._is_looking, has_left = False, self._has_left
            if has_left:
                self._forget()

    def _look(self, mine: Claim) -> int:
        going = draining()
        nodes = [
            node
            for node in ray.nodes()
            if node["Alive"] and self._suits(node.get("Labels", {})) and node["NodeID"] not in going
        ]
        there = sum(self._fits(node["Resources"]) for node in nodes)
        if not self._cpus:
            return there
        self._looks += 1
        note = json.dumps([mine.held, mine.wanted, self._looks]).encode()
        _internal_kv_put(self._key, note, overwrite=True)
        claims = {self._key: mine, **self._others()}
        available = available_resources_per_node()
        free = sum(available.get(node["NodeID"], {}).get("CPU", 0.0) for node in nodes)
        used = sum(node["Resources"].get("CPU", 0.0) for node in nodes) - free
        held = self._cpus * sum(claim.held for claim in claims.values())
        of_others = math.ceil(max(0.0, used - held) / self._cpus)
        return share({key: claim.wanted for key, claim in claims.items()}, max(there, self._ceiling()) - of_others)[
            self._key
        ]

    def leave(self) -> None:
        """Let others have the fleet's share. Waits for nothing: a look that is under way takes the note away itself."""
        with self._lock:
            self._has_left = True
            if self._is_looking:
                return
        self._forget()

    def _forget(self) -> None:
        if self._looks and ray.is_initialized():
            _internal_kv_del(self._key)

    def _others(self) -> dict[str, Claim]:
        now, claims = time.monotonic(), {}
        for name in _internal_kv_list(self._prefix):
            key = name.decode()
            note = _internal_kv_get(key)
            if key == self._key or note is None:
                continue
            last, since = self._seen.get(key, (b"", now))
            self._seen[key] = (note, since if note == last else now)
            if now - self._seen[key][1] > _SILENT_SECONDS:
                _internal_kv_del(key)
            else:
                held, wanted, _ = json.loads(note)
                claims[key] = Claim(held, wanted)
        return claims

    def _suits(self, labels: Mapping[str, str]) -> bool:
        return self._labels.items() <= labels.items()

    def _fits(self, resources: Mapping[str, float]) -> int:
        return int(resources.get("CPU", 0) / (self._cpus or 1))

    def _ceiling(self) -> int:
        """Actors that fit when the autoscaler has started all machines that it may; 0: there is none here."""
        return sum(it.machines * self._fits(it.resources) for it in self._growth.kinds() if self._suits(it.labels))


def draining() -> set[str]:
    """Ids of the nodes that will be taken, where nothing is started any more: spot machines after their notice."""
    return set(state.get_draining_nodes())


def on_nodes(actor_ids: Iterable[str], nodes: Collection[str]) -> set[str]:
    """Which of these actors are on one of these nodes."""
    return {it for it in actor_ids if nodes and actors(it).get("Address", {}).get("NodeID") in nodes}


def share(wanted: Mapping[str, int], there: int) -> dict[str, int]:
    """Max-min fair shares of so many: nobody gets more than wanted, and who gets less gets as much as any other, or one
    less."""
    shares, left = dict.fromkeys(wanted, 0), there
    while left > 0 and (hungry := sorted(key for key in wanted if shares[key] < wanted[key])):
        for key in hungry[:left]:
            shares[key] += 1
        left -= len(hungry[:left])
    return shares
