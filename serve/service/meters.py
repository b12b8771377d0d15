"""What a replica counts: Prometheus metrics, which Ray exports for the whole cluster, and an access log."""

from __future__ import annotations

import sys
import time

import msgspec
from ray.util.metrics import Counter, Gauge, Histogram

from learner.run.ray_session import metric_tag
from serve.service.policies import Policies, ServedPolicy

_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]
_SIZES = [float(2**i) for i in range(13)]


class Access(msgspec.Struct, omit_defaults=True):
    """A line of the access log."""

    time: float
    """Seconds since the epoch, when it was answered."""
    path: str
    status: int
    ms: float
    policy: str | None = None
    version: int | None = None
    observations: int = 0
    detail: str | None = None
    """What was wrong with it."""


class Meters:
    """Counts requests, batches, versions and reloads; Prometheus sees them as ``ray_touchdown_…``.

    Args:
        access_log: write a line of JSON for each request to standard output, which Ray keeps with its logs.
    """

    def __init__(self, access_log: bool = True) -> None:
        self._requests = Counter("touchdown_act_requests", "Requests to /act", ("policy", "status"))
        self._seconds = Histogram("touchdown_act_seconds", "Time to answer /act, in seconds", _SECONDS, ("policy",))
        self._batch = Histogram("touchdown_act_batch", "Observations in one forward pass", _SIZES)
        self._version = Gauge("touchdown_policy_version", "Updates that made the policy being served", ("policy",))
        self._reloads = Counter(
            "touchdown_policy_reloads", "Newer policies, by whether they were taken", ("policy", "result")
        )
        self._log_access = access_log
        self._lines: list[Access] = []

    def request(self, access: Access) -> None:
        """A request to /act was answered."""
        policy = metric_tag(access.policy or "")
        self._requests.inc(1, {"policy": policy, "status": str(access.status)})
        self._seconds.observe(access.ms / 1000, {"policy": policy})
        if self._log_access:
            self._lines.append(access)

    def batch(self, observations: int) -> None:
        """A forward pass was made."""
        self._batch.observe(observations)

    def versions(self, policies: Policies) -> None:
        """Which versions are served now."""
        for name, served in policies.items():
            self._version.set(served.version, {"policy": metric_tag(name)})

    def reload(self, served: ServedPolicy) -> None:
        """A newer policy was found."""
        self._reloads.inc(1, {"policy": metric_tag(served.name), "result": "refused" if served.refused else "taken"})

    def flush(self) -> None:
        """Write the access log's lines since the last call."""
        if self._lines:
            lines, self._lines = self._lines, []
            sys.stdout.buffer.write(msgspec.json.Encoder().encode_lines(lines))
            sys.stdout.buffer.flush()  # Ray's own stdout, flushed, leaves its buffer as it is


class Busy:
    """The share of one core that this process used since it was asked last."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def share(self) -> float:
        """0 idle, 1 a whole core."""
        cpu, wall = time.process_time(), time.monotonic()
        share = (cpu - self._cpu) / max(wall - self._wall, 1e-9)
        self._cpu, self._wall = cpu, wall
        return share
