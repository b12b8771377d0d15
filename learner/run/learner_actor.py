"""A learner in a process of its own: the thin Ray shell around learner.py.

torch is imported when the learner is made, in its own process: a driver that only refers to the class starts at once.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from actors.episode import Array, EpisodeBatch
from actors.policy import Policy
from learner.optimisation.device_faults import telling_device_faults


class LearnerActor:
    """Holds a Learner and tells how long it waited for batches. Like a RolloutActor, it is prepared by a call."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None

    def address(self) -> str:
        """``host:port`` where it listens for other learners, from now on."""
        import ray

        self._listener = socket.create_server(("", 0))
        return f"{ray.util.get_node_ip_address()}:{self._listener.getsockname()[1]}"

    @telling_device_faults()
    def prepare(
        self,
        threads: int,
        device: str,
        state: dict[str, Array] | None,
        rank: int,
        *addresses: str,
        **arguments: Any,
    ) -> str:
        """Make the learner; answers where it computes.

        Args:
            threads: CPU threads for torch; small networks are fastest with one.
            device: where to compute: auto, cpu or cuda.
            state: to go on from; None: to start anew.
            rank: its place among the learners that share the work.
            addresses: of all of them; the first one's is where they meet, the others' are closed.
            arguments: the others of Learner.
        """
        import torch

        from learner.optimisation.sharding import Shard, connect_by
        from learner.run.learner import Learner, find_device

        torch.set_num_threads(threads)
        connect_by(addresses[rank].rpartition(":")[0])
        assert self._listener is not None
        listener = None
        if rank == 0 and len(addresses) > 1:
            listener = self._listener.detach()
        else:
            self._listener.close()
        shard = Shard(rank, len(addresses), addresses[0], find_device(device), listener)
        self._learner = Learner(**arguments, device=device, shard=shard)
        if state is not None:
            self._learner.load_state(state)
        self._idle_since: float | None = None
        return self._learner.device_in_words()

    @telling_device_faults()
    def policy(self) -> Policy:
        """The policy as it is now."""
        return self._learner.policy()

    @telling_device_faults()
    def update(
        self, *batches: EpisodeBatch, progress_remaining: float
    ) -> tuple[Policy, tuple[dict[str, float], list[tuple[int, str]]]]:
        """Learn from batches; returns the new policy, then metrics (with seconds waited and busy) and notes."""
        start = time.perf_counter()
        waited = 0.0 if self._idle_since is None else start - self._idle_since
        policy, metrics = self._learner.update(*batches, progress_remaining=progress_remaining)
        self._idle_since = time.perf_counter()
        metrics |= {"time/learner_wait": waited, "time/learner_busy": self._idle_since - start}
        return policy, (metrics, self._learner.notes())

    @telling_device_faults()
    def follow(self, *batches: EpisodeBatch, progress_remaining: float) -> None:
        """``update`` of one that shares the first one's work: what it makes of the batch is the same."""
        self._learner.update(*batches, progress_remaining=progress_remaining)

    @telling_device_faults()
    def state(self) -> dict[str, Array]:
        """All that a learner needs to go on exactly where this one is, as arrays by name."""
        return self._learner.state()
