"""Films of a run's policy while it trains."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from actors.evaluation import record_video
from actors.policy import Policy
from actors.registration import register, registration
from learner.run.callback import Callback

if TYPE_CHECKING:
    from learner.run.result import Result
    from learner.run.trainer import Trainer

log = logging.getLogger("touchdown")

_SEED = 10_000
"""Every film is of the same first observation."""


class Films(Callback):
    """Films an episode of the policy every so many steps, beside training: ``videos/<steps>.mp4`` of the run.

    A film that is still being made when the next is due delays it; one that cannot be made ends them, with a line.

    Args:
        every: environment steps.
    """

    def __init__(self, every: int) -> None:
        self._every, self._due = every, 0
        self._making: tuple[int, ray.ObjectRef[Any]] | None = None

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Begin a film when it is time."""
        steps = int(metrics["time/total_timesteps"])
        if self._making or steps < self._due:
            return
        self._due = steps + self._every - steps % self._every
        task: Any = ray.remote(_film).options(num_cpus=0)  # actors have all of them
        self._making = steps, task.remote(trainer.policy(), registration(trainer.config.env))

    def on_wait(self, trainer: Trainer) -> None:
        """Keep the film if it is done."""
        if self._making and ray.wait([self._making[1]], timeout=0)[0]:
            self._keep(trainer)

    def on_end(self, trainer: Trainer, result: Result) -> None:  # noqa: ARG002
        """Wait for the last one, unless a signal ends the run."""
        if self._making and not trainer.signal:
            self._keep(trainer)
            trainer.recorder.finish()

    def _keep(self, trainer: Trainer) -> None:
        assert self._making
        (steps, film), self._making = self._making, None
        try:
            trainer.recorder.keep_file(f"videos/{steps:09d}.mp4", ray.get(film))
        except RayError as error:
            cause = getattr(error, "cause", error)
            log.warning("no films of this run: %s", " ".join(str(cause).split()))
            self._due = 2**63


def _film(policy: Policy, registered: bytes | None) -> bytes:
    """One episode as mp4, in a process of its own."""
    register(policy.spec.env_id, registered)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "film.mp4"
        record_video(policy, path, _SEED, episodes=1)
        return path.read_bytes()
