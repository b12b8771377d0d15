"""What a deployment is configured with: how many processes answer, and what a request may ask of them."""

from __future__ import annotations

import dataclasses
import math

from actors.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReplicaConfig:
    """How many processes answer.

    Raises:
        UserError: numbers that fit no deployment.
    """

    replicas: int = 1
    """Replicas, at the least; one answers thousands of requests a second."""
    max_replicas: int | None = None
    """Scale up to this many by how busy they are; None: --replicas, always."""
    cpus_per_replica: float = 1.0
    """CPUs that Ray sets aside for each."""

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise UserError(f"replicas must be 1 or more, not {self.replicas}")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise UserError(f"max_replicas must be {self.replicas} or more, not {self.max_replicas}")
        if not 0 <= self.cpus_per_replica < math.inf:
            raise UserError(f"cpus_per_replica must be zero or more, not {self.cpus_per_replica}")


@dataclasses.dataclass(frozen=True)
class HttpConfig:
    """Limits of the service.

    Raises:
        UserError: a limit that no request could meet.
    """

    max_body: int = 1 << 20
    """Bytes in the body of a request; one observation always fits."""
    body_seconds: float = 10.0
    """Time for a request's body to arrive."""
    max_waiting: int = 128
    """Requests that wait at once in a replica; more get 503 and Retry-After at once."""
    max_viewers: int = 64
    """Flights that a replica shows at once."""
    cors_origins: tuple[str, ...] = ()
    """Other origins whose pages may call the service, such as https://example.org."""
    access_log: bool = True
    """A line of JSON for each request to /act, in Ray's logs."""

    def __post_init__(self) -> None:
        for name in ("max_body", "body_seconds", "max_waiting", "max_viewers"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
