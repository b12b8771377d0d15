"""Trainer: owns a run. References to batches and policies pass through it; data never does."""

from __future__ import annotations

import dataclasses
import logging
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.environment_name import parse
from actors.environments import describe
from actors.errors import EnvironmentFault, PolicyLostError, UserError
from actors.fleet import Fleet, Landed
from actors.policy import Policy
from actors.score import Score
from actors.vectors import envpool_lacks
from actors.waiting import Waiting
from learner.commands.signals import stopping_on_signals
from learner.dataset.joining import EpisodeRecorder
from learner.dataset.part import public_name
from learner.run.beginning import begin
from learner.run.callback import Callback
from learner.run.config import TrainConfig
from learner.run.counters import Counters
from learner.run.evaluation import score_of
from learner.run.evaluator import Evaluator
from learner.run.initial import Initial
from learner.run.learner_group import LearnerGroup, LearnerLostError, RolloutLostError
from learner.run.ray_session import start_ray
from learner.run.result import Result
from learner.run.run_recorder import Checkpoint, RunRecorder
from learner.run.spares import Spares

log = logging.getLogger("touchdown")

_MAX_LEARNER_DEATHS = 5
"""A learner that dies this often without an update between stops the run."""
_POLICY_SECONDS = 1.0
"""Seconds between policies on disk, for who follows the run: a service that shows it learn, say."""


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
        initial: what a new run starts from; None: random weights.

    Raises:
        UserError: the environment, the loss or the run directory cannot be used, or is that of a run of another
            environment or network. Nothing has started then.
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
        initial: Initial | None = None,
    ) -> None:
        beginning = begin(config, run_dir, resume, initial)
        self._beginning, self._spares, self._callbacks, self._new = beginning, spares, callbacks, not resume
        self.config, self.environment, self.directory = beginning.config, beginning.environment, beginning.directory
        self.counters, self.dataset = beginning.counters, beginning.dataset
        self.learners = LearnerGroup(
            self.config, self.environment, preset, spares.learners if spares else None, initial, self.dataset
        )
        self._preset, self._command = preset, command
        self.ended = beginning.ended()
        """What the run came to, if there is nothing left to do."""
        self.fleet: Fleet | None = None
        self.version = 0
        self.learner_restarts = 0
        self.signal: int | None = None
        """The number of the operating system's signal that ends the run; None: none has come."""
        self._stop_reason: str | None = None
        self._began = self._saved = self._shown = 0.0
        self._learner_deaths = 0
        self._has_saved = False
        """Whether there was a checkpoint since the learner started."""
        self._update: _Update | None = None
        self._waiting = Waiting()
        self._evaluator = Evaluator(self.config)
        self._winner: Policy | None = None

    def stop(self, reason: str) -> None:
        """End the run after the update under way; from a callback or a signal handler."""
        self._stop_reason = self._stop_reason or reason

    def _heed(self, number: int) -> None:
        self.signal = number
        self.stop(f"{signal.Signals(number).name} received")

    def policy(self) -> Policy:
        """The newest policy.

        Raises:
            LearnerLostError: the learner died before it could tell.
        """
        return self._fetch(self._policy)

    @staticmethod
    def _fetch(reference: ray.ObjectRef[Any]) -> Policy:
        try:
            policy: Policy = ray.get(reference)
        except RayError as error:
            raise LearnerLostError(str(error)) from error
        return policy

    def run(self) -> Result:
        """Train until a stop condition holds or a signal comes; that or an error before any update leaves no run.

        A run that has ended is left as it is, and answers what it came to.

        Raises:
            NonFiniteError: a loss, gradient or observation became NaN or infinite; the last good checkpoint stays.
            UserError: an actor or the learner cannot do what the configuration asks.
            EnvironmentFault: an environment raised; its traceback is in the run directory.
            RayTaskError: a loss raised; carries its traceback.
            LearnerLostError: the learner died again and again.
            OSError: the run directory could not be written for minutes after the run's end.
        """
        if self.ended:
            return self.ended
        if self._new:
            self.directory.create(self.config, self._preset, self._command)
        else:
            self.directory.go_on(self.config, self.counters.total_timesteps, self._command)
        try:
            start_ray()
            result = self._run()
        except EnvironmentFault as fault:
            self._discard_empty()
            self.directory.storage.write("traceback.txt", fault.details.encode())
            where = f"its traceback is in {self.directory}/traceback.txt"
            raise EnvironmentFault(f"{fault}; {where}", fault.details) from None
        except BaseException:
            self._discard_empty()
            raise
        if self.signal:
            self._discard_empty()
        return result

    def _discard_empty(self) -> None:
        """The same command must be able to begin again."""
        if self._new and not self.counters.total_timesteps:
            try:
                self.directory.discard()
            except OSError as error:
                log.warning("cannot remove %s, in which nothing has happened: %s", self.directory, error)

    def _run(self) -> Result:
        keeping, options = self.config.checkpoint, self.config.flat()
        if self.config.dataset.dataset:  # the log is published with the policy
            options["dataset.dataset"] = public_name(self.config.dataset.dataset)
        self.recorder = RunRecorder(
            self.directory, keeping.keep_checkpoints, self._beginning.last, options, keeping.upload_seconds
        )
        with stopping_on_signals(self._heed):
            try:
                self._start()
                while True:
                    try:
                        reason = self._loop()
                        self._save()
                        policy = self._winner or self.policy()
                        self.recorder.show(policy)
                        break
                    except (LearnerLostError, PolicyLostError) as error:
                        self._go_back(error)
                reached = self._winner is not None
                result = Result(reason, policy, self.directory, self.config, self.counters, reached)
                self.recorder.conclude(result)
                if result.hint:
                    log.warning(result.hint)
                for callback in self._callbacks:
                    callback.on_end(self, result)
                return result
            finally:
                if self.fleet:
                    self.fleet.stop()
                self.learners.stop()
                self.recorder.close()

    def _start(self) -> None:
        """Start actors and learners, all at once."""
        config = self.config
        if self._spares is not None:
            self._spares.forget_dead()
        name, reason = parse(config.env), envpool_lacks(self.environment)
        plain = envpool_lacks(describe(name.made)) if reason and (name.arguments or name.wrappers) else "nothing to say"
        if not plain and config.rollout.backend == "auto":
            log.warning("Gymnasium flies it, not EnvPool, which is faster: %s", reason)
        self._start_learners()
        spare_actors = self._spares.actors if self._spares is not None else None
        begun = self.counters
        recorder = EpisodeRecorder(self.directory.recorded, self._preset) if config.record else None
        self.fleet = Fleet(
            *(config.env, config.rollout, config.fleet, config.seed),
            *(spare_actors, begun.tickets, begun.unlearned, self.dataset is None),
            recorder=recorder,
        )
        for callback in self._callbacks:
            callback.on_start(self)

    def _start_learners(self) -> None:
        last = self.recorder.last
        self._policy = self.learners.start(last.state if last else None)
        self.version = last.version if last else 0
        self.counters = Counters(**last.counters) if last else Counters()
        self._update = None

    def _await_start(self) -> None:
        assert self.fleet is not None
        self.learners.wait(lambda: self._stop_reason is not None)
        if not self.learners.device:
            raise UserError(f"{self._stop_reason} before there was a learner; nothing is lost")
        self.policy()  # a learner that dies before it tells is found out here, and not by every actor
        if self.recorder.last is None:
            self._save()
        while not (self.dataset or self.fleet.size or self._stop_reason):  # the clock starts with the first rollout
            self.fleet.resize()
            for ref in ray.wait(self.fleet.waiting_for, num_returns=1, timeout=0.1)[0]:
                self.fleet.land(ref)
            self._waiting.look(self.fleet.lacking)
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
            if not updating:
                self.learners.check()
            done, _ = ray.wait([*self.fleet.waiting_for, *updating], num_returns=1, timeout=0.1)
            for ref in done:
                if ref in updating:
                    self._receive(ref)
                else:
                    self.fleet.land(ref)
            if score := self.fleet.evaluated():
                self._judge(score)
            self._waiting.look(self.fleet.lacking)
            for callback in self._callbacks:
                callback.on_wait(self)
            if self._update is None and (reason := self._end_reason()):
                return reason

    def _submit(self) -> None:
        """Feed the learner if it is free, and the actors."""
        assert self.fleet is not None
        self.fleet.launch_evaluation()
        if self._progress() >= 1:
            return
        self._evaluator.consider(self.fleet, self._policy, self.version, self.counters)
        if self._update is None:
            landed = self.fleet.take(self.version) if self.dataset is None else []
            if landed or self.dataset:
                self._begin_update(landed)
        if self.dataset is None:
            self.fleet.launch(self._policy, self.version)

    def _begin_update(self, landed: list[Landed]) -> None:
        """Have the learner learn from these rollouts, or from what is recorded."""
        assert self.fleet is not None
        self.fleet.in_update = len(landed)
        self.counters.progress_remaining = self.counters.annealing * (1 - self._progress())
        batches = [rollout.batch for rollout in landed]
        policy, answers = self.learners.update(batches, self.counters.progress_remaining)
        self._update = _Update(landed, policy, answers)

    def _progress(self) -> float:
        return self.config.stop.progress(*self.counters.spent)

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
            metrics = self.learners.metrics(update.answers)
        except RolloutLostError:
            log.warning("a rollout was lost on its way to the learner; flying others")  # with the node that held it
            self.fleet.give_back(update.landed)
            return
        self._learner_deaths = 0
        lags = [self.version - rollout.report.policy_version for rollout in update.landed]
        self._policy, self.version = update.policy, self.version + 1
        self.counters.seconds = time.monotonic() - self._began
        self.counters.updates += 1
        for rollout in update.landed:
            self.counters.add(rollout.report, self.config.stop.window)
        if self.dataset:
            self.counters.total_timesteps += int(metrics["train/gradient_steps"]) * (
                self.config.algorithm.batch_size or 0
            )
        row = self._row(metrics, statistics.fmean(lags) if lags else 0.0, update.landed)
        self.recorder.log(row)
        keep_every = self.config.checkpoint.keep_every
        if keep_every and self.version % keep_every == 0:
            self.recorder.keep_version(self.policy())
        now = time.monotonic()
        if now - self._saved >= self.config.checkpoint.checkpoint_seconds:
            self._save()
        elif now - self._shown >= _POLICY_SECONDS:
            self._show()
        for callback in self._callbacks:
            callback.on_update(self, row)

    def _judge(self, score: Score) -> None:
        """Log what a policy scored; keep it if it is the best, and hand it over if it reaches the target."""
        verdict = self._evaluator.judge(score, self.counters)
        row = {**self.counters.row(), **verdict.figures}
        self.recorder.log(row)
        if verdict.is_best or verdict.reaches_target:
            policy = self._fetch(score.policy)
            if verdict.is_best:
                self.recorder.keep_best(
                    policy, score_of(policy, *score.flown, score.seeds[0], not policy.spec.is_sampled)
                )
            if verdict.reaches_target:
                self._winner = policy
        for callback in self._callbacks:
            callback.on_evaluation(self, row)

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
        if self._winner is not None:
            return f"target return {stop.target_return:g} reached"
        if self._stop_reason is not None:
            return self._stop_reason
        assert self.fleet is not None
        if self._progress() < 1:
            return None
        scoring = self._evaluator.consider(self.fleet, self._policy, self.version, counters, last=True)
        return None if scoring else "budget used up"

    def save(self) -> None:
        """Write a checkpoint now, and wait until it is safe.

        Raises:
            OSError: it could not be written for minutes.
            LearnerLostError: the learner died.
        """
        self._save()
        self.recorder.finish()

    def _save(self) -> None:
        """Checkpoint the learner and the counters together, and the policy beside them."""
        if self.fleet:
            self.counters.tickets, self.counters.unlearned = self.fleet.tickets, self.fleet.unlearned
        self.counters.budget_used = self._progress()
        self.recorder.save(Checkpoint(self.version, self.learners.state(), dataclasses.asdict(self.counters)))
        self._show()
        self._saved = time.monotonic()
        self._has_saved = True

    def _show(self) -> None:
        self.recorder.show(self.policy())
        self._shown = time.monotonic()

    def _go_back(self, error: LearnerLostError | PolicyLostError) -> None:
        """The learner died: start another from the last checkpoint, and count again from there."""
        assert self.fleet is not None
        if self.signal:  # which ends all of Ray, it may be: the last checkpoint is what is kept
            raise LearnerLostError(f"{self._stop_reason}, and the learner died: {error}") from error
        remedy = error.remedy if isinstance(error, LearnerLostError) else ""
        if remedy and not self._has_saved:
            raise UserError(f"the learner cannot go on: {error}; {remedy}") from error
        self._has_saved = False
        self._learner_deaths += 1
        self.learner_restarts += bool(self.learners.device)  # not again if it was put on a node that was lost already
        if self._learner_deaths >= _MAX_LEARNER_DEATHS:
            raise LearnerLostError(f"the learner died {self._learner_deaths} times without an update: {error}")
        self._start_learners()
        log.warning("the learner died; going on from the checkpoint at %d steps", self.counters.total_timesteps)
        if isinstance(error.__cause__, RayTaskError):
            log.warning("it died of this: %s", error)
        self.fleet.in_update = 0
        self.fleet.forget(self.version)
        self.fleet.go_back(self.counters.tickets, self.counters.unlearned)
        self.recorder.rewind()


@dataclasses.dataclass
class _Update:
    """An update under way."""

    landed: list[Landed]
    """What it learns from."""
    policy: ray.ObjectRef[Any]
    answers: list[ray.ObjectRef[Any]]
    """What each learner answers when it has done the update."""
    ready: list[ray.ObjectRef[Any]] = dataclasses.field(default_factory=list)

    @property
    def awaited(self) -> list[ray.ObjectRef[Any]]:
        return [answer for answer in self.answers if answer not in self.ready]
