"""Trainer: owns a run. References to batches and policies pass through it; data never does."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from actors.environments import EnvironmentInfo, describe, require_envpool
from actors.errors import UserError
from actors.fleet import Fleet, Landed
from actors.policy import Policy
from learner.checkpoint import has_checkpoint, load_checkpoint
from learner.config import TrainConfig
from learner.counters import Counters
from learner.learner_group import PATIENT_SECONDS, LearnerGroup, LearnerLostError, RolloutLostError, wishes
from learner.ray_session import start_ray
from learner.run_directory import RunDirectory
from learner.saver import Checkpoint, Saver
from learner.signals import stopping_on_signals

if TYPE_CHECKING:
    from learner.losses import Loss

log = logging.getLogger("touchdown")

_BUILT_IN_LOSSES = ("policy_gradient", "ppo")
_MAX_LEARNER_DEATHS = 5
"""A learner that dies this often without an update between stops the run."""
_POLICY_SECONDS = 1.0
"""Between policies on disk, for who follows the run: a service that shows it learn, say."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to."""

    reason: str
    """Why it ended, in words."""
    policy: Policy
    directory: RunDirectory
    counters: Counters

    @property
    def mean_return(self) -> float:
        """Mean return of the last window of training episodes; NaN before the first."""
        return self.counters.mean_return


@dataclasses.dataclass
class Spares:
    """Processes that a run has done with and the next one of the same fleet can use: starting them takes seconds."""

    actors: list[Any] = dataclasses.field(default_factory=list)
    learners: list[Any] = dataclasses.field(default_factory=list)


class Callback:
    """Told what happens in a run; override what you need."""

    def on_start(self, trainer: Trainer) -> None:
        """Actors and learner are starting."""

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """An update is done; ``metrics`` is its row of the log."""

    def on_wait(self, trainer: Trainer) -> None:
        """Called several times a second."""

    def on_end(self, _trainer: Trainer, result: Result) -> None:
        """The run is over, its last checkpoint written."""


class Trainer:
    """One training run: a new one, or one that goes on.

    Args:
        config: what to train; with ``resume`` the configuration of the run that goes on.
        run_dir: where the run lives: a path, or a URI (see ``open_storage``).
        preset: the preset the config came from, for the record.
        resume: go on from the last checkpoint in ``run_dir``.
        callbacks: told of every update.
        spares: processes to use before any is started, and where this run leaves its own; None: they end with the run.
        command: what made the run, for the record; None: this process's command line.

    Raises:
        UserError: the environment, the loss or the run directory cannot be used. Nothing has started then.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: str | Path,
        preset: str | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        spares: Spares | None = None,
        command: str | None = None,
    ) -> None:
        self.config = config
        self._spares = spares
        self.environment: EnvironmentInfo = describe(config.env)
        if config.rollout.backend == "envpool":
            require_envpool(self.environment)
        self.directory = RunDirectory(run_dir)
        self.counters = Counters()
        self.fleet: Fleet | None = None
        self.version = 0
        self.learner_restarts = 0
        self._callbacks = callbacks
        last: Checkpoint | None = None
        self.learners = LearnerGroup(
            config, self.environment, preset, own_loss(config.loss.loss), spares.learners if spares else None
        )
        if resume and not has_checkpoint(self.directory.checkpoints):
            log.warning("%s holds no checkpoint yet: beginning again", self.directory)
        elif resume:
            state, counters = load_checkpoint(self.directory.checkpoints)
            last = Checkpoint(int(state["version"]), state, counters)
            self.counters = Counters(**counters)
        else:
            self.directory.create(config, preset, command)
        self._last = last
        self._stop_reason: str | None = None
        self._began = self._saved = self._shown = 0.0
        self._learner_deaths = 0
        self._update: _Update | None = None

    def stop(self, reason: str) -> None:
        """End the run after the update under way; from a callback or a signal handler."""
        self._stop_reason = self._stop_reason or reason

    def policy(self) -> Policy:
        """The newest policy.

        Raises:
            LearnerLostError: the learner died before it could tell.
        """
        try:
            policy: Policy = ray.get(self._policy)
        except RayError as error:
            raise LearnerLostError(str(error)) from error
        return policy

    def run(self) -> Result:
        """Train until a stop condition holds.

        Raises:
            NonFiniteError: a loss, gradient or observation became NaN or infinite; the last good checkpoint stays.
            UserError: an actor or the learner cannot do what the configuration asks.
            RayTaskError: an environment or a loss raised; carries its traceback.
            LearnerLostError: the learner died again and again.
            OSError: the run directory could not be written for minutes after the run's end.
        """
        start_ray()
        self.saver = Saver(self.directory, self.config.checkpoint.keep_checkpoints, self._last)
        with stopping_on_signals(self.stop):
            try:
                self._start()
                while True:
                    try:
                        reason = self._loop()
                        self._save()
                        policy = self.policy()
                        break
                    except LearnerLostError as error:
                        self._go_back(error)
                self.saver.finish()
                result = Result(reason, policy, self.directory, self.counters)
                for callback in self._callbacks:
                    callback.on_end(self, result)
                return result
            finally:
                if self.fleet:
                    self.fleet.stop()
                self.learners.stop()
                self.saver.close()

    def _start(self) -> None:
        """Start actors and learners, all at once."""
        config = self.config
        if self._spares is not None:
            self._spares.actors[:] = filter(_is_alive, self._spares.actors)
            self._spares.learners[:] = filter(_is_alive, self._spares.learners)
        self._start_learners()
        spare_actors = self._spares.actors if self._spares is not None else None
        self.fleet = Fleet(config.env, config.rollout, config.fleet, config.seed, spare_actors)
        for callback in self._callbacks:
            callback.on_start(self)

    def _start_learners(self) -> None:
        last = self.saver.last
        self._policy = self.learners.start(last.state if last else None)
        self.version = last.version if last else 0
        self.counters = Counters(**last.counters) if last else Counters()
        self._update = None

    def _await_start(self) -> None:
        assert self.fleet is not None
        self.learners.wait(lambda: self._stop_reason is not None)
        if not self.learners.device:
            raise UserError(f"{self._stop_reason} before there was a learner; nothing is lost")
        if self.saver.last is None:
            self._save()
        began, said = time.monotonic(), False
        while not self.fleet.size and self._stop_reason is None:  # the clock starts with the first rollout
            self.fleet.resize()
            for ref in ray.wait(self.fleet.waiting_for, num_returns=1, timeout=0.1)[0]:
                self.fleet.land(ref)
            if not said and time.monotonic() - began > PATIENT_SECONDS:
                said = True
                config = self.config.fleet
                log.warning(
                    "still waiting for a node to fly on, with %s",
                    wishes(config.cpus_per_actor, "CPU", config.actor_labels),
                )
        self._began = time.monotonic() - self.counters.seconds

    def _loop(self) -> str:
        """Until a stop condition holds; returns which.

        Raises:
            LearnerLostError: the learner died.
        """
        assert self.fleet is not None
        self._await_start()
        while True:
            self.fleet.resize()
            self._submit()
            updating = self._update.awaited if self._update else []
            done, _ = ray.wait([*self.fleet.waiting_for, *updating], num_returns=1, timeout=0.1)
            for ref in done:
                if ref in updating:
                    self._receive(ref)
                else:
                    self.fleet.land(ref)
            for callback in self._callbacks:
                callback.on_wait(self)
            if self._update is None and (reason := self._end_reason()):
                return reason

    def _submit(self) -> None:
        """Feed the learner if it is free, and the actors."""
        assert self.fleet is not None
        if self._update is None and (landed := self.fleet.take(self.version)):
            self.fleet.in_update = len(landed)
            policy, answers = self.learners.update([rollout.batch for rollout in landed], self._progress())
            self._update = _Update(landed, policy, answers)
        self.fleet.launch(self._policy, self.version)

    def _progress(self) -> float:
        counters = self.counters
        return self.config.stop.progress(counters.total_timesteps, counters.episodes, counters.seconds)

    def _receive(self, answer: ray.ObjectRef[Any]) -> None:
        """A learner has answered. If all have, count what they learned from, log it, and hand the policy on."""
        assert self.fleet is not None
        assert self._update is not None
        update = self._update
        update.ready.append(answer)
        if not self.learners.is_done(update.answers, update.ready):
            return
        self._update, self.fleet.in_update = None, 0
        try:
            metrics: dict[str, float] = self.learners.result(update.answers)
        except RolloutLostError:
            log.warning("a rollout was lost on its way to the learner; flying others")  # with the node that held it
            return
        self._learner_deaths = 0
        lag = statistics.fmean(self.version - rollout.report.policy_version for rollout in update.landed)
        self._policy, self.version = update.policy, self.version + 1
        self.counters.seconds = time.monotonic() - self._began
        for rollout in update.landed:
            self.counters.add(rollout.report, self.config.stop.window)
        row = self._row(metrics, lag, update.landed)
        self.saver.log(row)
        now = time.monotonic()
        if now - self._saved >= self.config.checkpoint.checkpoint_seconds:
            self._save()
        elif now - self._shown >= _POLICY_SECONDS:
            self._show()
        for callback in self._callbacks:
            callback.on_update(self, row)

    def _row(self, metrics: dict[str, float], lag: float, landed: list[Landed]) -> dict[str, float]:
        assert self.fleet is not None
        return {
            **self.counters.row(),
            "rollout/policy_lag": lag,
            "rollout/batch_bytes": sum(rollout.report.num_bytes for rollout in landed),
            "rollout/dropped": self.fleet.dropped,
            "rollout/actors": self.fleet.size,
            "rollout/actor_restarts": self.fleet.restarts,
            "rollout/learner_restarts": self.learner_restarts,
            **metrics,
        }

    def _end_reason(self) -> str | None:
        stop, counters = self.config.stop, self.counters
        counters.seconds = time.monotonic() - self._began
        if self._stop_reason is not None:
            return self._stop_reason
        full = len(counters.recent_returns) == stop.window
        if stop.target_return is not None and full and counters.mean_return >= stop.target_return:
            return f"target return {stop.target_return:g} reached"
        return "budget used up" if self._progress() >= 1 else None

    def save(self) -> None:
        """Write a checkpoint now, and wait until it is safe.

        Raises:
            OSError: it could not be written for minutes.
            LearnerLostError: the learner died.
        """
        self._save()
        self.saver.finish()

    def _save(self) -> None:
        """Checkpoint the learner and the counters together, and the policy beside them."""
        self.saver.save(Checkpoint(self.version, self.learners.state(), dataclasses.asdict(self.counters)))
        self._show()
        self._saved = time.monotonic()

    def _show(self) -> None:
        self.saver.show(self.policy())
        self._shown = time.monotonic()

    def _go_back(self, error: LearnerLostError) -> None:
        """The learner died: start another from the last checkpoint, and count again from there."""
        assert self.fleet is not None
        self._learner_deaths += 1
        self.learner_restarts += 1
        if self._learner_deaths >= _MAX_LEARNER_DEATHS:
            raise LearnerLostError(f"the learner died {self._learner_deaths} times without an update: {error}")
        self._start_learners()
        log.warning("the learner died; going on from the checkpoint at %d steps", self.counters.total_timesteps)
        self.fleet.in_update = 0
        self.fleet.forget()
        self.saver.rewind()


@dataclasses.dataclass
class _Update:
    """An update under way."""

    landed: list[Landed]
    """What it learns from."""
    policy: ray.ObjectRef[Any]
    answers: list[ray.ObjectRef[Any]]
    """Of the learners, when they have done it."""
    ready: list[ray.ObjectRef[Any]] = dataclasses.field(default_factory=list)

    @property
    def awaited(self) -> list[ray.ObjectRef[Any]]:
        return [answer for answer in self.answers if answer not in self.ready]


def _is_alive(actor: Any) -> bool:
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=10)
    except RayError:
        return False
    return True


def own_loss(name: str) -> Loss | None:
    """A loss of the user's, found in this process to be sent to the learner's; None for the built-in ones."""
    if name in _BUILT_IN_LOSSES:
        return None
    from learner.losses import find_loss

    return find_loss(name)
