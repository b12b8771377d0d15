"""RunRecorder: what a run keeps, written behind its back; and the last checkpoint at hand, for a learner that died."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

from actors.episode import Array
from actors.policy import Policy
from learner.keeping.background_writer import PATIENCE, BackgroundWriter
from learner.keeping.checkpoint import save_checkpoint
from learner.keeping.metrics_log import MetricsLog
from learner.keeping.storage import ObjectStore
from learner.run.result import Result
from learner.run.run_directory import RunDirectory, json_bytes

log = logging.getLogger("touchdown")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on."""

    version: int
    state: dict[str, Array]
    """The learner's."""
    counters: dict[str, Any]


class RunRecorder:
    """Keeps checkpoints, policies and metrics of one run.

    Args:
        directory: where.
        keep: checkpoints that stay.
        last: the checkpoint that the run goes on from; None: it begins.
        options: of the run, by name, for the log.
        upload_seconds: between two writes of one thing, where an object store bills each; see CheckpointConfig.

    Raises:
        OSError: the log of an earlier part of the run cannot be read or written.
    """

    def __init__(
        self,
        directory: RunDirectory,
        keep: int,
        last: Checkpoint | None,
        options: dict[str, Any] | None = None,
        upload_seconds: float = 0.0,
    ) -> None:
        self.last = last
        self._directory, self._keep = directory, keep
        self._every = upload_seconds if isinstance(directory.storage, ObjectStore) else 0.0
        self._safe_at = time.monotonic()
        self._metrics = MetricsLog(directory.storage, last.counters["total_timesteps"] if last else 0, options)
        self._writer = BackgroundWriter(str(directory))

    @property
    def failures(self) -> int:
        """Writes that failed, and were or will be tried again."""
        return self._writer.failures

    @property
    def unsaved_seconds(self) -> float:
        """What a loss of this process would cost: the age of the newest checkpoint that is safe."""
        return time.monotonic() - self._safe_at

    def log(self, row: dict[str, float]) -> None:
        """Add a row to the metrics."""
        self._metrics.write(row)
        self._writer.submit("metrics", self._metrics.flush, self._every)

    def show(self, policy: Policy) -> None:
        """Write a policy, for who follows the run."""
        self._writer.submit("policy", lambda: self._directory.write_policy(policy), self._every)

    def keep_file(self, name: str, data: bytes) -> None:
        """Write a file of the run."""
        self._writer.submit(name, lambda: self._directory.storage.write(name, data))

    def keep_version(self, policy: Policy) -> None:
        """Write a policy that stays, whatever comes after it."""
        versions, number = self._directory.storage.within("versions"), str(policy.spec.version)
        self._writer.submit(f"version {number}", lambda: versions.write_directory(number, policy.files()))

    def keep_best(self, policy: Policy, score: dict[str, Any]) -> None:
        """Write the best policy so far, and its score, in place of the one before."""
        self._writer.submit("best", lambda: self._directory.write_best(policy, score))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, after the metrics that lead up to it."""
        self.last = checkpoint
        self._metrics.mark()
        made = time.monotonic()

        def write() -> None:
            self._metrics.flush()
            state, counters = checkpoint.state, checkpoint.counters
            save_checkpoint(self._directory.checkpoints, checkpoint.version, state, counters, self._keep)
            self._safe_at = made

        self._writer.submit("checkpoint", write, self._every)

    def conclude(self, result: Result) -> None:
        """Write what the run came to, once all else is safe: a run that is said to have ended does not go on.

        Raises:
            OSError: the storage did not take it for minutes.
        """
        self.finish()
        data = json_bytes(result.record())
        self._writer.submit("result", lambda: self._directory.storage.write("result.json", data))
        self.finish()

    def rewind(self) -> None:
        """Drop the metrics since the last checkpoint: its learner goes on from there."""
        self._metrics.rewind()
        self._writer.submit("metrics", self._metrics.flush, self._every)

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: the storage did not take it for minutes.
        """
        self._writer.flush(PATIENCE)

    def close(self) -> None:
        """End; writes what the storage takes at once. What it does not take is in the log, not an error: this is the
        way out, also of a run that failed for a reason of its own."""
        try:
            self._writer.flush(patience=1.0)
        except Exception as error:
            log.warning("%.0f s of the run are not written to %s: %s", self.unsaved_seconds, self._directory, error)
        finally:
            self._writer.close()
