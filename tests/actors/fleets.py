"""Fleets of obedient environments: what they are told, and how a test waits for them."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from actors.fleet import Fleet, Landed
from actors.rollout import RolloutConfig
from tests.actors.examples import stubborn_policy
from tests.serve.served import wait_for

OBEDIENT = "tests.actors.fake_environments:Obedient-v0"
ROLLOUT = RolloutConfig(n_envs=2, n_steps=8, backend="gymnasium")
PATIENCE = 120
"""Seconds after which a test gives up; none waits for them to pass."""

MakeFleet = Callable[..., Fleet]


def kill(actor: Any) -> None:
    """Kill an actor, which Ray does in its own time, and wait until nobody reaches it."""
    ray.kill(actor)
    wait_for(lambda: not is_well(actor))


def is_well(actor: Any) -> bool:
    """Whether an actor answers; one that does not is ended."""
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=PATIENCE)
    except RayError:
        ray.kill(actor)
        return False
    return True


def ordered(action: int, version: int = 0) -> ray.ObjectRef[Any]:
    return ray.put(stubborn_policy(OBEDIENT, action, version))


def drive(fleet: Fleet, until: Callable[[], bool], between: Callable[[], object] = lambda: None) -> None:
    """Land what comes down, and do something in between, until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, "this takes too long"
        between()
        if fleet.waiting_for:
            for ref in ray.wait(fleet.waiting_for, num_returns=1, timeout=0.1)[0]:
                fleet.land(ref)


def start(fleet: Fleet, size: int) -> None:
    drive(fleet, lambda: fleet.size == size)


def land(fleet: Fleet, ref: ray.ObjectRef[Any]) -> None:
    """Wait for one rollout and land it; to the fleet, those that nobody lands are still in the air."""
    assert ray.wait([ref], timeout=PATIENCE)[0]
    fleet.land(ref)


def versions(landed: list[Landed]) -> list[int]:
    return [each.report.policy_version for each in landed]
