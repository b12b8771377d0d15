"""The learner as the Trainer sees it: one process, or several that share every minibatch."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.environments import EnvironmentInfo
from actors.episode import Array
from actors.errors import LostContactError, NonFiniteError, UserError
from actors.waiting import PATIENT_SECONDS, Waiting, wishes
from learner.algorithms.registry import name_of
from learner.optimisation.device_faults import DeviceFault
from learner.run.config import TrainConfig
from learner.run.learner_actor import LearnerActor

if TYPE_CHECKING:
    from learner.dataset.dataset import Dataset
    from learner.run.initial import Initial

log = logging.getLogger("touchdown")

_CHECK_SECONDS = 1.0

Ref = ray.ObjectRef[Any]


class LearnerLostError(Exception):
    """A learner died; the run can go on from its last state.

    Args:
        remedy: what would help if it dies again.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class RolloutLostError(Exception):
    """A batch was lost on its way to the learner."""


class LearnerGroup:
    """Starts ``config.placement.learners`` learners, and passes references to them and from them.

    All of them get every batch and hold the same networks; the first one's policy and state stand for all. If one dies,
    all are started again: the others wait for it in vain.

    Args:
        config: of the run.
        environment: what is flown.
        preset: for the policy's record of how it was trained.
        spares: idle learners to use before any is started; ``stop`` leaves this one's there. None: ``stop`` ends them.
        initial: what they start from; None: random weights.
        dataset: the recorded episodes that they learn from; None: they are given batches.

    Raises:
        UserError: the algorithm cannot learn to fly this environment with this network.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentInfo,
        preset: str | None,
        spares: list[Any] | None = None,
        initial: Initial | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        network = config.network.of_policy(environment.observation)
        trained: dict[str, Any] = {"preset": preset, "seed": config.seed, "algorithm": name_of(config.algorithm)}
        if initial:
            network["scale_actions"] = initial.policy.spec.scale_actions
            trained["init_from"] = initial.record()
        if dataset:
            trained |= dataset.summary()
        distribution = config.algorithm.distribution(environment.action)
        target = (dataset.asked if dataset else 0.0) if network["memory"] == "transformer" else None
        self.spec = environment.policy_spec(
            **network,
            trained=trained,
            distribution=distribution,
            target_return=target,
            sampled=config.evaluation.sampled,
        )
        """That of the policies to come, without a version."""
        config.algorithm.require_fit(self.spec)
        self._arguments = {
            "critic": config.network.critic(bool(self.spec.network.trunk)),
            "spec": self.spec,
            "algorithm": config.algorithm,
            "optimisation": config.optimisation,
            "seed": config.seed,
            "initial": initial,
            "keeps_memory": config.checkpoint.checkpoint_memory,
            "dataset": dataset,
        }
        self._placement = config.placement
        self._spares = spares
        self._learners: list[Any] = []
        self._prepared: list[Ref] = []
        self._asked: list[Ref] = []
        self._asked_at = 0.0
        self.device = ""
        """Where they compute, in words; empty until all can learn."""

    def start(self, state: dict[str, Array] | None) -> Ref:
        """Start learners from a state, or anew, in place of those that there are; answers the first one's policy."""
        self._end()
        self.device = ""
        wanted, device = self._placement, self._placement.device
        there = ray.cluster_resources().get("GPU", 0) >= wanted.gpu_share * wanted.learners
        may_come = device == "cuda" and os.environ.get("RAY_ADDRESS", "local") != "local"  # of an autoscaler
        gpus = wanted.gpu_share if device != "cpu" and (there or may_come) else 0
        if wanted.learners > 1 and device == "auto" and not gpus:  # they cannot share a GPU that happens to be there
            device = "cpu"
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": gpus}
        if wanted.learner_labels:
            options["label_selector"] = wanted.learner_labels
        actor_class: Any = ray.remote(LearnerActor).options(**options)
        self._wishes = wishes(gpus, "GPU", wanted.learner_labels)
        for _ in range(wanted.learners):
            self._learners.append(self._spares.pop() if self._spares else actor_class.remote())
        addresses = [
            learner.address.remote() for learner in self._learners
        ]  # nobody waits for one that has no node yet
        state_ref = ray.put(state) if state is not None else None
        self._prepared = [
            learner.prepare.remote(wanted.threads, device, state_ref, rank, *addresses, **self._arguments)
            for rank, learner in enumerate(self._learners)
        ]
        policy: Ref = self._learners[0].policy.remote()
        return policy

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Until all can learn, or ``stopping`` says so.

        Raises:
            UserError: one of them cannot do what the configuration asks.
            RayTaskError: making the networks raised.
            LearnerLostError: one died.
        """
        waiting = Waiting()
        while not stopping():
            done, _ = ray.wait(self._prepared, num_returns=len(self._prepared), timeout=0.1)
            if self.is_done(self._prepared, done):
                self.device = self.result(self._prepared)
                return
            waiting.look(f"a node to learn on, with {self._wishes}")

    def update(self, batches: Sequence[Ref], progress_remaining: float) -> tuple[Ref, list[Ref]]:
        """Learn from batches: references to the new policy, and to what ``result`` makes the metrics of."""
        first, *others = self._learners
        options = {"progress_remaining": progress_remaining}
        policy, metrics = first.update.options(num_returns=2).remote(*batches, **options)
        return policy, [metrics, *(other.follow.remote(*batches, **options) for other in others)]

    def is_done(self, answers: Sequence[Ref], ready: Sequence[Ref]) -> bool:
        """Whether ``result`` of these answers is known, now that some are ready: all of them, or one that failed."""
        return len(ready) == len(answers) or any(_error(ref) for ref in ready)

    def result(self, answers: Sequence[Ref]) -> Any:
        """What the first of the learners answered.

        Raises:
            LearnerLostError: one died, its device failed, or they lost contact with each other.
            UserError, NonFiniteError, RayTaskError: what a learner raised.
            RolloutLostError: a batch was lost on its way; the learner is as it was.
        """
        pending, first_error, deadline = list(answers), None, math.inf
        while pending and time.monotonic() < deadline:
            done, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, min(1.0, deadline - time.monotonic())))
            for ref in done:
                error = _error(ref)
                if isinstance(error, RayActorError):
                    raise LearnerLostError(str(error)) from error
                _require_device(error)
                if isinstance(error, RayTaskError) and isinstance(error.cause, UserError | NonFiniteError):
                    raise error.cause
                if error and first_error is None:  # perhaps only of one that misses another, which is found dead soon
                    first_error, deadline = error, time.monotonic() + PATIENT_SECONDS
        if first_error is None:
            return ray.get(answers[0])
        cause = getattr(first_error, "cause", None)
        lost_rollout = isinstance(cause, RayError) and not isinstance(cause, RayTaskError)  # with the node that held it
        if lost_rollout and len(answers) == 1:
            raise RolloutLostError(str(cause)) from first_error
        if lost_rollout or isinstance(cause, LostContactError):
            raise LearnerLostError(str(cause)) from first_error
        raise first_error from None

    def check(self) -> None:
        """Ask the learners once a second, while they have nothing else to do, whether they are alive.

        Raises:
            LearnerLostError: one died.
        """
        if not self._asked and time.monotonic() - self._asked_at > _CHECK_SECONDS:
            self._asked = [learner.__ray_ready__.remote() for learner in self._learners]
            self._asked_at = time.monotonic()
        done, self._asked = ray.wait(self._asked, num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for error in filter(None, map(_error, done)):
            raise LearnerLostError(str(error)) from error

    def metrics(self, answers: Sequence[Ref]) -> dict[str, float]:
        """``result`` of an update; what the learner noted on the way joins the log."""
        metrics: dict[str, float]
        metrics, notes = self.result(answers)
        for level, note in notes:
            log.log(level, note)
        return metrics

    def state(self) -> dict[str, Array]:
        """All that the learners need to go on exactly where they are, as arrays by name.

        Raises:
            LearnerLostError: the first learner died.
        """
        try:
            state: dict[str, Array] = ray.get(self._learners[0].state.remote())
        except RayTaskError as error:
            _require_device(error)
            raise
        except RayError as error:  # it died, or what it answered went with its node
            raise LearnerLostError(str(error)) from error
        return state

    def stop(self) -> None:
        """End the learners, or keep one that was alone as a spare."""
        if self._spares is not None and len(self._learners) == 1:
            self._spares.append(self._learners.pop())
        self._end()

    def _end(self) -> None:
        for learner in self._learners:
            ray.kill(learner)
        self._learners, self._asked = [], []


def _error(ref: Ref) -> RayError | None:
    try:
        ray.get(ref)
    except RayError as error:
        return error
    return None


def _require_device(error: RayError | None) -> None:
    """Raise LearnerLostError for a fault of a learner's device: its process is ended with the group, another begins."""
    fault = getattr(error, "cause", None)
    if isinstance(fault, DeviceFault):
        raise LearnerLostError(str(fault), fault.remedy) from error
