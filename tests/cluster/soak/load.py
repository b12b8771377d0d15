"""Clients that ask a service all the time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from serve.client import PolicyClient
from tests.cluster.soak.answers import Answer, Answers

_PAUSE = 0.1
"""Seconds between a client's requests: at full speed it is the load that takes the CPUs."""


@dataclass(frozen=True)
class Request:
    """One request, with all that its client tried."""

    at: float
    """When it was answered, or given up, by ``time.monotonic``."""
    seconds: float
    version: int
    """That answered; -1: it failed."""


class Load:
    """Clients in threads of their own, from here to ``stop``. Observations are CartPole's.

    Args:
        address: of the service.
        token: that it asks for.
        answers: who judges.
        clients: how many.
        patience: seconds after which a request has failed.
    """

    def __init__(self, address: str, token: str, answers: Answers, clients: int = 3, patience: float = 120.0) -> None:
        self.requests: list[Request] = []
        self.failed: list[str] = []
        self._answers, self._stop = answers, threading.Event()
        self._options = {"address": address, "token": token, "patience": patience}
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with PolicyClient(**self._options) as client:
            while not self._stop.wait(_PAUSE):
                observations = rng.normal(size=(rng.integers(1, 5), 4)).astype(np.float32)
                began = time.monotonic()
                try:
                    one = len(observations) == 1
                    action = client.act(observations[0]) if one else client.act_many(observations)
                except Exception as error:  # any at all is a request that failed
                    self.failed.append(f"{type(error).__name__}: {error}")
                    self.requests.append(Request(time.monotonic(), time.monotonic() - began, -1))
                    continue
                now = time.monotonic()
                self.requests.append(Request(now, now - began, action.version))
                self._answers.judge(Answer(now, observations, action))

    def stop(self) -> None:
        """No more requests."""
        self._stop.set()
        for thread in self._threads:
            thread.join(150)
