"""Recording: whole episodes of several policies, flown on all free CPUs by tasks that write what they fly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from actors.errors import EnvironmentFault, NonFiniteError, UserError
from actors.policy import Policy
from actors.registration import register, registration
from actors.rollout import Rollout
from actors.seeds import ACTIONS, ENVIRONMENTS, sub_seed
from actors.vectors import make_environments
from learner.dataset.dataset import PARTS
from learner.dataset.flying import Recorded, require_random
from learner.dataset.form import Form
from learner.dataset.part import Source, public_name
from learner.dataset.writer import DatasetWriter, created
from learner.keeping.storage import open_storage
from learner.run.ray_session import start_ray

_SLOTS = 64
"""Environments that a task steps together, of small observations, and how many episodes each of them flies."""
_EPISODES_PER_SLOT = 4
_LARGE_SLOTS = 8
"""Environments that a task steps together, of large observations: one episode each, all of which it holds till then."""
_LARGE = 1024
"""Bytes from which on an observation is large."""
_EXPLORING = 2
"""The part of a task's seed that decides which actions are random; beside ENVIRONMENTS and ACTIONS."""


@dataclasses.dataclass(frozen=True)
class Flight:
    """What one task flies: ``slots`` environments, ``episodes_per_slot`` whole episodes in each."""

    policy: int
    """Which of the policies."""
    slots: int
    episodes_per_slot: int

    @property
    def episodes(self) -> int:
        """How many it flies."""
        return self.slots * self.episodes_per_slot


@dataclasses.dataclass(frozen=True)
class Pilot:
    """A policy, how it flies, and what the dataset says of it."""

    policy: Policy
    name: str
    """Where the policy is from, as a user would write it."""
    epsilon: float = 0.0
    """The share of its actions that are uniformly random."""
    deterministic: bool = False
    """It takes the most likely actions, but for these."""

    @property
    def source(self) -> Source:
        """Who flew, for the dataset."""
        spec = self.policy.spec
        return {
            "policy": public_name(self.name),
            "version": spec.version,
            "preset": spec.trained.get("preset"),
            "epsilon": self.epsilon,
            "deterministic": self.deterministic,
        }


def planned(episodes: int, form: Form, policies: int) -> list[Flight]:
    """Flights of so many episodes in all, shared evenly by the policies; how many are free to fly them changes nothing.

    Each environment flies a number of whole episodes that is fixed before, so that short ones do not count more.
    """
    size = sum(
        column.dtype.itemsize * int(np.prod(column.shape, dtype=np.int64))
        for name, column in form.columns().items()
        if name.startswith("observations")
    )
    slots, most = (_LARGE_SLOTS, 1) if size > _LARGE else (_SLOTS, _EPISODES_PER_SLOT)
    flights = []
    for policy in range(policies):
        left = episodes // policies + (policy < episodes % policies)
        while left:
            each = min(most, max(1, left // slots))
            flights.append(Flight(policy, min(slots, left), each))
            left -= flights[-1].episodes
    return flights


def record(
    pilots: Sequence[Pilot],
    episodes: int,
    location: str,
    seed: int,
    max_episode_steps: int,
    landed: Callable[[int, int], None],
) -> None:
    """Add whole episodes to a dataset, which is made if there is none. The same arguments add the same episodes.

    Args:
        pilots: who flies; they share the episodes evenly.
        episodes: how many in all.
        location: of the dataset: a path, s3://… or gs://…, which all nodes of the cluster see.
        seed: decides the episodes; a dataset has those of a seed once.
        max_episode_steps: where an episode is cut if the environment has no limit of its own.
        landed: told of episodes and steps as they are written.

    Raises:
        UserError: the policies are of several environments, the dataset is of another, or has episodes of this seed.
        EnvironmentFault: the environment raised; carries its traceback.
        OSError: the dataset cannot be written.
    """
    spec = pilots[0].policy.spec
    form = Form(spec.env_id, spec.observation, spec.action)
    for pilot in pilots:
        other = pilot.policy.spec
        if other.env_id != spec.env_id:
            raise UserError(f"{pilots[0].name} flies {spec.env_id}, and {pilot.name} {other.env_id}: one at a time")
        other.require_spaces(spec.env_id, form.observation, form.action)
        require_random(pilot.policy, pilot.epsilon)
    storage = open_storage(location)
    created(storage, form)
    prefix = f"seed{seed}-"
    if any(name.startswith(prefix) for name in storage.within(PARTS).names()):
        raise UserError(f"{storage} has episodes of seed {seed} already: give another --seed, or another directory")
    registered = registration(spec.env_id)
    start_ray()
    free = ray.available_resources().get("CPU", 0) >= 1  # of a run whose processes are kept none may be, for ever
    task: Any = ray.remote(_fly).options(num_cpus=int(free))
    references = [ray.put(pilot) for pilot in pilots]
    waiting = [
        task.remote(references[flight.policy], flight, str(storage), form, seed, number, max_episode_steps, registered)
        for number, flight in enumerate(planned(episodes, form, len(pilots)))
    ]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            for episodes_flown, steps in ray.get(done):
                landed(episodes_flown, steps)
    except RayTaskError as error:
        if isinstance(error.cause, EnvironmentFault | UserError | NonFiniteError | OSError):
            raise error.cause from None
        raise
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _fly(
    pilot: Pilot,
    flight: Flight,
    location: str,
    form: Form,
    seed: int,
    number: int,
    max_episode_steps: int,
    registered: bytes | None,
) -> tuple[int, int]:
    """Fly one flight and write it; tells its episodes and steps."""
    register(form.env_id, registered)
    writer = f"seed{seed}-{number:05d}"
    parts = open_storage(location).within(PARTS)
    for name in parts.names():
        if name.startswith(f"{writer}-"):  # of this task, on a node that was lost meanwhile
            parts.remove(name)
    dataset = DatasetWriter(location, form.env_id, form.observation, form.action, writer)
    mine = sub_seed(seed, number)
    policy = Recorded(pilot.policy, pilot.epsilon, pilot.deterministic, sub_seed(mine, _EXPLORING))
    environments = make_environments(
        form.env_id, flight.slots, sub_seed(mine, ENVIRONMENTS), max_episode_steps=max_episode_steps
    )
    try:
        batch = Rollout(environments, sub_seed(mine, ACTIONS)).episodes(policy, flight.episodes_per_slot)
    finally:
        environments.close()
    dataset.add(batch, pilot.source)
    dataset.close()
    return batch.num_segments, batch.num_steps
