"""The policies that a process serves: loaded, checked, and renewed while requests go on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actors.environments import EnvironmentInfo, describe
from actors.errors import UserError, printable, unknown
from actors.policy import Policy, policy_directory
from actors.trees import map_leaves
from actors.trust import require_named
from learner.keeping.policies import find_policy
from learner.keeping.storage import Storage, open_storage

log = logging.getLogger("touchdown")

Stamp = tuple[int, int, int]

_ELSEWHERE = "serve it under another name"
_CHECKED = 2**20
"""Numbers that a policy is tried on."""


@dataclasses.dataclass(frozen=True)
class ServedPolicy:
    """One policy as it is served now."""

    name: str
    source: str
    """A run directory, or a directory with a policy: a path, or a URI such as s3://bucket/runs/first."""
    policy: Policy
    stamp: Stamp
    """Stamp of the file that was looked at last: what was refused is not tried again until it changes."""
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

    @functools.cached_property
    def shown_once(self) -> dict[str, Any]:
        """What ``/act`` answers whatever the observation is: see ``Distribution.shown_once``."""
        once: dict[str, Any] = map_leaves(np.ndarray.tolist, self.policy.distribution.shown_once)
        return once

    def summary(self) -> dict[str, Any]:
        """What ``GET /policies`` tells of it."""
        spec = self.policy.spec
        return {
            "name": self.name,
            "env_id": spec.env_id,
            "version": spec.version,
            "actions": spec.distribution,
            "action_size": len(self.policy.distribution.labels),
            "observation_shape": spec.observation.shape,
            "takes": spec.observation.in_words(),
            "does": spec.action.in_words(),
            "memory": spec.network.memory,
            "target_return": spec.target_return,
            "sampled": spec.is_sampled,
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

    Args:
        sources: run directories, or directories with a policy, by name: paths, or URIs of an object store.
        modules: those that may be imported for an environment; no file decides that.

    Raises:
        UserError: a policy is missing or damaged, or cannot be flown in its environment.
    """

    def __init__(self, sources: Mapping[str, str | Path], modules: Collection[str] = ()) -> None:
        if not sources:
            raise UserError("no policy to serve: name a run directory")
        self.modules = modules
        named = {printable(name): str(source) for name, source in sources.items()}  # a name is sent as JSON
        self._served = {name: _load(name, source, modules) for name, source in named.items()}
        self.first = next(iter(self._served))

    def __getitem__(self, name: str) -> ServedPolicy:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
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
            if new := self._renewed(served):
                self._served[name] = new
                changed.append(new)
        return changed

    def _renewed(self, served: ServedPolicy) -> ServedPolicy | None:
        """A policy from its newer file, or as it is with what that was refused for; None: there is no newer one."""
        stamp = _stamp(served.source)
        if stamp == served.stamp:
            return None
        try:
            new = _load(served.name, served.source, self.modules)
            require_same_spaces(served.policy, new.policy)
        except Exception as error:  # whatever it is, the other policies are renewed all the same
            expected = isinstance(error, UserError | OSError)
            refused = printable(str(error) if expected else f"{type(error).__name__}: {error}")
            message = "policy %s: version %d stays: %s"
            log.warning(message, served.name, served.version, refused, exc_info=not expected)
            return dataclasses.replace(served, stamp=stamp, refused=refused, refusals=served.refusals + 1)
        log.info("policy %s: version %d replaces %d", served.name, new.version, served.version)
        return dataclasses.replace(new, reloads=served.reloads + 1, refusals=served.refusals)


def _stamp(source: str) -> Stamp:
    try:
        if "://" in source:  # a store tells the time of a write to the second, and two policies have one size
            told = hashlib.sha256(_place(source).read("policy.json")).digest()
            return (int.from_bytes(told[:8]), 0, 0)
        status = (policy_directory(source) / "policy.safetensors").stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


@functools.cache
def _place(source: str) -> Storage:
    """Where in an object store a run has its policy: found once, since to look costs requests."""
    storage = open_storage(source)
    names = storage.names()
    if not {"policy", "policy.json"} & set(names):
        raise FileNotFoundError(f"no policy in {storage}")
    return storage.within("policy") if "policy" in names else storage


def _load(name: str, source: str, modules: Collection[str]) -> ServedPolicy:
    stamp = _stamp(source)  # first: a file that is replaced while it is read is looked at again
    policy = find_policy(source) if "://" in source else Policy.load(policy_directory(source))
    check(policy, modules)
    return ServedPolicy(name, source, policy, stamp, time.time())


def check(policy: Policy, modules: Collection[str] = ()) -> None:
    """Make sure that a policy can act, and in the environment that it names if that is installed here.

    Args:
        policy: from a file.
        modules: those that may be imported for its environment.

    Raises:
        UserError: its outputs are not finite, or its environment has other spaces.
    """
    spec = policy.spec
    count = max(1, min(64, _CHECKED // spec.observation.inputs))
    observations = spec.observation.sample(np.random.default_rng(0), count)
    with np.errstate(all="ignore"):
        outputs = policy.forward(observations)
    if not np.isfinite(outputs).all():
        raise UserError("its outputs hold NaNs or infinities")
    environment = environment_of(policy, modules)
    if environment is not None:
        spec.require_spaces(spec.env_id, environment.observation, environment.action)


def environment_of(policy: Policy, modules: Collection[str]) -> EnvironmentInfo | None:
    """The environment that a policy is for; None, which acting does not need, if it is not installed here or in a
    module that may not be imported."""
    try:
        require_named(policy.spec.env_id, modules)
        return describe(policy.spec.env_id)
    except UserError:
        return None


def require_same_spaces(old: Policy, new: Policy) -> None:
    """A policy must not change its shape under its clients.

    Raises:
        UserError: the new one takes or gives something else.
    """
    if old.spec.env_id != new.spec.env_id:
        raise UserError(f"it is for {new.spec.env_id}, the one being served for {old.spec.env_id}: {_ELSEWHERE}")
    for name in ("observation", "action"):
        before, after = getattr(old.spec, name), getattr(new.spec, name)
        if before.form != after.form:
            raise UserError(
                f"its {name} is {after.in_words()}, that of the one being served {before.in_words()}: {_ELSEWHERE}"
            )
    if _remembered(old) != _remembered(new):
        raise UserError(
            f"it remembers {_remembered(new)} numbers, the one being served {_remembered(old)}: {_ELSEWHERE}"
        )


def _remembered(policy: Policy) -> int:
    """Numbers that it remembers of an episode."""
    return sum(rows.size for rows in policy.start(1).values())
