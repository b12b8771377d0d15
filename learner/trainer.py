"""Trainer: owns a run. References to batches and policies pass through it; data never does."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.environments import EnvironmentInfo, describe, require_envpool
from actors.errors import NonFiniteError, UserError
from actors.fleet import Fleet, Landed
from actors.policy import Policy
from learner.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from learner.config import TrainConfig
from learner.remote import LearnerActor
from learner.run_directory import MetricsLog, RunDirectory

if TYPE_CHECKING:
    from learner.losses import Loss

log = logging.getLogger("touchdown")

_BUILT_IN_LOSSES = ("policy_gradient", "ppo")
_MAX_LEARNER_DEATHS = 5
"""A learner that dies this often without an update between stops the run."""
_POLICY_SECONDS = 1.0
"""Between policies on disk, for who follows the run: a service that shows it learn, say."""


@dataclasses.dataclass
class Counters:
    """How far a run is. Saved with every checkpoint."""

    total_timesteps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    """Since collection began, pauses between runs excluded."""
    best_mean_return: float = -math.inf
    """Best running mean over a full window of episodes."""
    recent_returns: list[float] = dataclasses.field(default_factory=list)
    recent_lengths: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to."""

    reason: str
    """Why it ended, in words."""
    policy: Policy
    run_dir: Path
    counters: Counters

    @property
    def mean_return(self) -> float:
        """Mean return of the last window of training episodes; NaN before the first."""
        returns = self.counters.recent_returns
        return statistics.fmean(returns) if returns else math.nan


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
        run_dir: where the run lives.
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
        self.device = ""
        self.fleet: Fleet | None = None
        self.version = 0
        self._preset = preset
        self._callbacks = callbacks
        self._loss = own_loss(config.loss.loss)
        self._checkpoint: dict[str, Any] | None = None
        if resume:
            self._checkpoint, counters = load_checkpoint(self.directory.checkpoints)
            self.counters = Counters(**counters)
        else:
            self.directory.create(config, preset, command)
        self._stop_reason: str | None = None
        self._began = self._saved = self._shown = 0.0
        self._learner_deaths = 0
        self._learner: Any = None

    def stop(self, reason: str) -> None:
        """End the run after the update under way; from a callback or a signal handler."""
        self._stop_reason = self._stop_reason or reason

    def policy(self) -> Policy:
        """The newest policy."""
        policy: Policy = ray.get(self._policy)
        return policy

    def run(self) -> Result:
        """Train until a stop condition holds.

        Raises:
            NonFiniteError: a loss, gradient or observation became NaN or infinite; the last good checkpoint stays.
            UserError: an actor or the learner cannot do what the configuration asks.
            RayTaskError: an environment or a loss raised; carries its traceback.
            OSError: the run directory can no longer be written.
        """
        start_ray()
        self._metrics = MetricsLog(self.directory.path, self.counters.total_timesteps)
        with _stopping_on_signals(self):
            try:
                self._start()
                while True:
                    reason = self._loop()
                    try:
                        return self._finish(reason)
                    except RayActorError as error:  # the learner died before its last checkpoint
                        self._restore(error)
            finally:
                self._metrics.close()
                if self.fleet:
                    self.fleet.stop()
                if self._learner and self._spares is not None:
                    self._spares.learners.append(self._learner)
                elif self._learner:
                    ray.kill(self._learner)

    def _start(self) -> None:
        config = self.config
        if self._spares is not None:
            self._spares.actors[:] = filter(_is_alive, self._spares.actors)
            self._spares.learners[:] = filter(_is_alive, self._spares.learners)
        prepared = self._start_learner()  # while the actors start too
        spare_actors = self._spares.actors if self._spares is not None else None
        self.fleet = Fleet(config.env, config.rollout, config.fleet, config.seed, spare_actors)
        for callback in self._callbacks:
            callback.on_start(self)
        try:
            self._await_learner(prepared)
        except RayActorError as error:
            self._restore(error)
        while not self.fleet.size and self._stop_reason is None:  # the clock starts with the first rollout
            for ref in ray.wait(self.fleet.waiting_for, num_returns=1, timeout=0.1)[0]:
                self.fleet.land(ref)
        self._began = time.monotonic() - self.counters.seconds

    def _start_learner(self) -> ray.ObjectRef[Any]:
        """Start and prepare a learner; the reference tells its device."""
        config = self.config
        network = dataclasses.asdict(config.network)
        critic_sizes = network.pop("critic_sizes")
        trained = {"preset": self._preset, "seed": config.seed, "advantage": config.loss.advantage}
        update = config.update
        there = ray.cluster_resources().get("GPU", 0) >= update.gpu_share
        may_come = update.device == "cuda" and os.environ.get("RAY_ADDRESS", "local") != "local"  # of an autoscaler
        gpus = update.gpu_share if update.device != "cpu" and (there or may_come) else 0
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": gpus}
        if update.learner_labels:
            options["label_selector"] = update.learner_labels
        actor_class: Any = ray.remote(LearnerActor).options(**options)
        self._learner = self._spares.learners.pop() if self._spares and self._spares.learners else actor_class.remote()
        prepared: ray.ObjectRef[Any] = self._learner.prepare.remote(
            threads=config.update.threads,
            state=self._checkpoint,
            spec=self.environment.policy_spec(**network, trained=trained),
            loss_config=config.loss,
            update_config=config.update,
            seed=config.seed,
            critic_sizes=critic_sizes,
            loss=self._loss,
        )
        self.version = int(self._checkpoint["version"]) if self._checkpoint is not None else 0
        self._policy: ray.ObjectRef[Any] = self._learner.policy.remote()
        self._update: tuple[ray.ObjectRef[Any], ray.ObjectRef[Any], list[Landed]] | None = None
        return prepared

    def _await_learner(self, prepared: ray.ObjectRef[Any]) -> None:
        try:
            self.device = ray.get(prepared)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError) else error from None
        if self._checkpoint is None:
            self.save()

    def _loop(self) -> str:
        """Until a stop condition holds; returns which."""
        assert self.fleet is not None
        while True:
            self.fleet.resize()
            self._submit()
            updating = [self._update[1]] if self._update else []
            done, _ = ray.wait([*self.fleet.waiting_for, *updating], num_returns=1, timeout=0.1)
            for ref in done:
                if self._update and ref == self._update[1]:
                    self._receive()
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
            policy, metrics = self._learner.update.options(num_returns=2).remote(
                *(rollout.batch for rollout in landed), progress=self._progress()
            )
            self._update = policy, metrics, landed
        self.fleet.launch(self._policy, self.version)

    def _progress(self) -> float:
        counters = self.counters
        return self.config.stop.progress(counters.total_timesteps, counters.episodes, counters.seconds)

    def _receive(self) -> None:
        """An update is done: count what it learned from, log it, and hand its policy on."""
        assert self.fleet is not None
        assert self._update is not None
        policy, metrics_ref, landed = self._update
        self._update, self.fleet.in_update = None, 0
        try:
            metrics: dict[str, float] = ray.get(metrics_ref)
        except RayTaskError as error:
            if isinstance(error.cause, RayError) and not isinstance(error.cause, RayTaskError):
                log.warning("a rollout was lost on its way to the learner; flying others")  # with the node that held it
                return
            raise error.cause if isinstance(error.cause, NonFiniteError | UserError) else error from None
        except RayActorError as error:
            self._restore(error)
            return
        self._learner_deaths = 0
        lag = statistics.fmean(self.version - rollout.report.policy_version for rollout in landed)
        self._policy, self.version = policy, self.version + 1
        self._count(landed)
        row = self._row(metrics, lag)
        self._metrics.write(row)
        now = time.monotonic()
        try:
            if now - self._saved >= self.config.checkpoint.checkpoint_seconds:
                self.save()
            elif now - self._shown >= _POLICY_SECONDS:
                self._show()
        except RayActorError as error:
            self._restore(error)
            return
        for callback in self._callbacks:
            callback.on_update(self, row)

    def _count(self, landed: list[Landed]) -> None:
        counters, window = self.counters, self.config.stop.window
        counters.seconds = time.monotonic() - self._began
        for rollout in landed:
            report = rollout.report
            counters.total_timesteps += report.num_steps
            counters.episodes += len(report.episode_returns)
            counters.recent_returns = (counters.recent_returns + report.episode_returns.tolist())[-window:]
            counters.recent_lengths = (counters.recent_lengths + report.episode_lengths.tolist())[-window:]
        if len(counters.recent_returns) == window:
            counters.best_mean_return = max(counters.best_mean_return, statistics.fmean(counters.recent_returns))

    def _row(self, metrics: dict[str, float], lag: float) -> dict[str, float]:
        assert self.fleet is not None
        counters = self.counters
        returns, lengths = counters.recent_returns, counters.recent_lengths
        return {
            "rollout/ep_rew_mean": statistics.fmean(returns) if returns else math.nan,
            "rollout/ep_len_mean": statistics.fmean(lengths) if lengths else math.nan,
            "rollout/best_ep_rew_mean": counters.best_mean_return,
            "rollout/policy_lag": lag,
            "rollout/dropped": self.fleet.dropped,
            "rollout/actors": self.fleet.size,
            "rollout/actor_restarts": self.fleet.restarts,
            "time/total_timesteps": counters.total_timesteps,
            "time/episodes": counters.episodes,
            "time/time_elapsed": counters.seconds,
            "time/fps": counters.total_timesteps / max(counters.seconds, 1e-9),
            **metrics,
        }

    def _end_reason(self) -> str | None:
        stop, counters = self.config.stop, self.counters
        counters.seconds = time.monotonic() - self._began
        full = len(counters.recent_returns) == stop.window
        if self._stop_reason is not None:
            return self._stop_reason
        if stop.target_return is not None and full and statistics.fmean(counters.recent_returns) >= stop.target_return:
            return f"target return {stop.target_return:g} reached"
        return "budget used up" if self._progress() >= 1 else None

    def save(self) -> None:
        """Checkpoint the learner and the counters together, and the policy beside them."""
        arrays = ray.get(self._learner.state.remote())
        keep = self.config.checkpoint.keep_checkpoints
        save_checkpoint(self.directory.checkpoints, self.version, arrays, dataclasses.asdict(self.counters), keep)
        self._show()
        self._checkpoint = arrays
        self._saved = time.monotonic()

    def _show(self) -> None:
        self.policy().save(self.directory.policy)
        self._shown = time.monotonic()

    def _restore(self, error: RayActorError) -> None:
        """The learner died: start another from the last checkpoint, and count again from there."""
        assert self.fleet is not None
        self._learner_deaths += 1
        if self._learner_deaths >= _MAX_LEARNER_DEATHS:
            raise error
        if has_checkpoint(self.directory.checkpoints):  # it has none if it died as it started
            self._checkpoint, counters = load_checkpoint(self.directory.checkpoints)
            self.counters = Counters(**counters)
        log.warning("the learner died; going on from the checkpoint at %d steps", self.counters.total_timesteps)
        self.fleet.forget()
        self._metrics.rewind(self.counters.total_timesteps)
        prepared = self._start_learner()
        try:
            self._await_learner(prepared)
        except RayActorError as again:
            self._restore(again)
        self._began = time.monotonic() - self.counters.seconds

    def _finish(self, reason: str) -> Result:
        self.save()
        result = Result(reason, self.policy(), self.directory.path, self.counters)
        for callback in self._callbacks:
            callback.on_end(self, result)
        return result


def start_ray(**own: Any) -> None:
    """Join the cluster that RAY_ADDRESS names ("auto": the one on this machine), or start one of this process; once.

    Not ``ray.init()``'s own rule, which joins whatever cluster another process has left on this machine.

    Args:
        own: more arguments of ``ray.init`` for a cluster of this process's own.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: a second thread costs more than it brings
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of a failed rollout we read the report, not the batch
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {"include_dashboard": False, **own} if address == "local" else {}
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **local)


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


@contextmanager
def _stopping_on_signals(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run after the update under way; a second one ends it at once."""

    def stop(number: int, _frame: Any) -> None:
        trainer.stop(f"{signal.Signals(number).name} received")
        signal.signal(number, previous[number])

    previous: dict[int, Callable[..., Any] | int | None] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            previous[number] = signal.signal(number, stop)
        except ValueError:  # not the main thread, such as a Tune trial: its owner handles signals
            break
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
