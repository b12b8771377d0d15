"""The policies that a process serves: loaded, checked, and renewed while requests go on."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actors.distributions import Gaussian
from actors.environments import EnvironmentInfo, describe
from actors.errors import UserError, unknown
from actors.policy import Policy, policy_directory

log = logging.getLogger("touchdown")

Stamp = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ServedPolicy:
    """One policy as it is served now."""

    name: str
    source: Path
    """A run directory, or a directory with a policy."""
    policy: Policy
    stamp: Stamp
    """Of the file that was looked at last: what was refused is not tried again until it changes."""
    loaded_at: float
    """Seconds since the epoch."""
    reloads: int = 0
    refusals: int = 0
    refused: str | None = None
    """Why the newest file is not served; None: it is."""

    @property
    def version(self) -> int:
        """How many updates made it."""
        return self.policy.spec.version

    @property
    def std(self) -> list[float] | None:
        """Standard deviations of a continuous policy's components."""
        distribution = self.policy.distribution
        return distribution.std.tolist() if isinstance(distribution, Gaussian) else None

    def summary(self) -> dict[str, Any]:
        """What ``GET /policies`` tells of it."""
        spec = self.policy.spec
        return {
            "name": self.name,
            "env_id": spec.env_id,
            "version": spec.version,
            "actions": spec.actions,
            "action_size": spec.action_size,
            "observation_shape": spec.observation_shape,
            "trained": spec.trained,
            "loaded_at": self.loaded_at,
            "reloads": self.reloads,
            "refusals": self.refusals,
            "refused": self.refused,
        }


class Policies(Mapping[str, ServedPolicy]):
    """All policies of a process, by name; the first is the one that requests get which name none.

    ``refresh`` may run in another thread: a policy is swapped in by one assignment, and requests that are under way
    keep the one they began with.

    Raises:
        UserError: a policy is missing or damaged, or cannot be flown in its environment.
    """

    def __init__(self, sources: Mapping[str, str | Path]) -> None:
        if not sources:
            raise UserError("no policy to serve: name a run directory")
        self._served = {name: _load(name, Path(source)) for name, source in sources.items()}
        self.first = next(iter(self._served))

    def __getitem__(self, name: str) -> ServedPolicy:
        return self._served[name]

    def __iter__(self) -> Any:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def find(self, name: str | None) -> ServedPolicy:
        """The policy of that name, or the first.

        Raises:
            UserError: there is none of that name.
        """
        served = self._served.get(self.first if name is None else name)
        if served is None:
            raise unknown("policy", str(name), self._served)
        return served

    def refresh(self) -> list[ServedPolicy]:
        """Look for newer files; check them and swap them in. One that is broken is refused, and the old one stays.

        Returns:
            What changed, as it is now.
        """
        changed = []
        for name, served in self._served.items():
            stamp = _stamp(served.source)
            if stamp == served.stamp:
                continue
            try:
                new = _load(name, served.source)
                require_same_spaces(served.policy, new.policy)
            except (UserError, OSError) as error:
                refused = dataclasses.replace(served, stamp=stamp, refused=str(error), refusals=served.refusals + 1)
                log.warning("policy %s: version %d stays: %s", name, served.version, error)
                changed.append(refused)
            else:
                log.info("policy %s: version %d replaces %d", name, new.version, served.version)
                changed.append(dataclasses.replace(new, reloads=served.reloads + 1, refusals=served.refusals))
            self._served[name] = changed[-1]
        return changed


def _stamp(source: Path) -> Stamp:
    try:
        status = (policy_directory(source) / "policy.safetensors").stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _load(name: str, source: Path) -> ServedPolicy:
    stamp = _stamp(source)  # first: a file that is replaced while it is read is looked at again
    policy = Policy.load(policy_directory(source))
    check(policy)
    return ServedPolicy(name, source, policy, stamp, time.time())


def check(policy: Policy) -> None:
    """Make sure that a policy can act, and in the environment that it names if that is installed here.

    Raises:
        UserError: its outputs are not finite, or its environment has other spaces.
    """
    spec = policy.spec
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((64, *spec.observation_shape), np.float32)
    with np.errstate(all="ignore"):
        outputs = policy.forward(observations)
    if not np.isfinite(outputs).all():
        raise UserError("its outputs hold NaNs or infinities")
    environment = environment_of(policy)
    if environment is not None:
        flown = environment.policy_spec()
        for field in ("observation_shape", "actions", "action_size", "action_shape"):
            if getattr(flown, field) != getattr(spec, field):
                raise UserError(f"its {field} is {getattr(spec, field)}, {spec.env_id} has {getattr(flown, field)}")


def environment_of(policy: Policy) -> EnvironmentInfo | None:
    """The environment that a policy is for; None if it is not installed here, which acting does not need."""
    try:
        return describe(policy.spec.env_id)
    except UserError:
        return None


def require_same_spaces(old: Policy, new: Policy) -> None:
    """A policy must not change its shape under its clients.

    Raises:
        UserError: the new one takes or gives something else.
    """
    for field in ("env_id", "observation_shape", "actions", "action_size", "action_shape"):
        before, after = getattr(old.spec, field), getattr(new.spec, field)
        if before != after:
            raise UserError(
                f"its {field} is {after}, that of the one being served {before}: serve it under another name"
            )
