"""The service for those who watch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.policy import Policy
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from serve.service.tokens import digest
from serve.watch.flight import Flight
from serve.watch.recording import Recorder
from tests.actors.examples import policy_for
from tests.serve.served import PATIENCE, running


def saved(directory: Path, policies: Mapping[str, Policy], modules: Sequence[str] = ()) -> Policies:
    """Policies by name, served from ``directory``."""
    for name, policy in policies.items():
        policy.save(directory / name)
    return Policies({name: directory / name for name in policies}, modules)


@contextlib.contextmanager
def served(
    policies: Policies, most_viewers: int = 64, token: str | None = None, port: int = 0, record: Path | None = None
) -> Iterator[str]:
    """Run a server; gives its address, such as ``127.0.0.1:1234``."""
    limits = HttpConfig(max_viewers=most_viewers, body_seconds=PATIENCE, access_log=False)
    service = Service(policies, limits, digest(token) if token else None, record=str(record) if record else None)
    with running(service, port) as address:
        yield address.removeprefix("http://")


def upright(observation: Any) -> int:
    """Which way a person pushes a cart whose pole falls: the stick's choice."""
    return int(observation[2] + observation[3] > 0)


def flown_by_hand(
    directory: Path, env_id: str = "CartPole-v1", episodes: int = 20, hand: Callable[[Any], int] = upright
) -> Path:
    """A dataset of what a person has flown on the page, without a page; carts for some hundred steps each.

    Args:
        directory: for the dataset and the policy beside which it was flown.
        env_id: what is flown.
        episodes: so many, from seeds that count up.
        hand: the stick's choice, given an observation.
    """
    policies = saved(directory, {"theirs": policy_for(env_id)})
    recorder = Recorder(str(directory / "mine"), policies)
    flight = Flight(policies, "theirs", recorded=True)
    for seed in range(episodes):
        flight.begin(seed)
        while not flight.over:
            flight.take(hand(flight._observation))
            flight.step()
        episode = flight.flown_by_hand()
        assert episode
        recorder.keep(episode)
    flight.close()
    return directory / "mine"
