"""Learners of synthetic experience, and one whose loss is a test's own."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from actors.episode import Array
from actors.spec import PolicySpec
from learner.algorithms.algorithm import Algorithm, Experience
from learner.algorithms.ppo import PPO
from learner.networks.actor_critic import ActorCritic, Outputs
from learner.optimisation.config import OptimisationConfig
from learner.run.learner import Learner
from tests.learner import make_batch

Metrics = dict[str, Tensor]
Steps = types.SimpleNamespace
"""The columns of a minibatch, as attributes."""
OwnFunction = Callable[[Outputs, Steps, PPO], tuple[Tensor, Metrics]]


@dataclasses.dataclass(frozen=True)
class OwnLoss(PPO):
    """PPO, but for its loss: a function of the networks' outputs, the minibatch and the options."""

    function: Any = None
    """An ``OwnFunction``; None: PPO's."""

    def loss(self, network: ActorCritic, steps: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        """What the function answers."""
        if self.function is None:
            return super().loss(network, steps)
        answer: tuple[Tensor, Metrics] = self.function(self.outputs(network, steps), Steps(**steps), self)
        return answer


@dataclasses.dataclass(frozen=True)
class OnAFailingDevice(PPO):
    """PPO on a device that fails its first updates, so often."""

    error: str = "AcceleratorError"
    """The name of torch's error."""
    words: str = ""
    failures: int = 1
    marks: str = ""
    """A directory with a file for each failure so far."""

    def prepare(self, network: ActorCritic, flown: Experience) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Fails, or does what PPO does."""
        for number in range(self.failures):
            with contextlib.suppress(FileExistsError), open(f"{self.marks}/{number}", "x"):
                raise getattr(torch, self.error)(self.words)
        return super().prepare(network, flown)


ONE_SGD_STEP = {"n_epochs": 1, "batch_size": None, "optimizer": "sgd", "learning_rate": 1.0, "max_grad_norm": math.inf}
OF_LEARNERS = ("seed", "critic", "device", "shard", "initial")


def make_learner(spec: PolicySpec, kind: type[Algorithm] | Algorithm = PPO, **options: Any) -> Learner:
    """A learner on the CPU, of two epochs of minibatches of 16 unless told otherwise.

    Args:
        spec: of the policy.
        kind: an algorithm, or one with options.
        options: of the algorithm, of the optimiser, or Learner's own.
    """
    optimisers = {option.name for option in dataclasses.fields(OptimisationConfig)} & options.keys()
    optimisation = OptimisationConfig(**{name: options.pop(name) for name in optimisers})
    own = {"device": "cpu", **{name: options.pop(name) for name in OF_LEARNERS if name in options}}
    if isinstance(kind, type):
        return Learner(spec, kind(**{"n_epochs": 2, "batch_size": 16, **options}), optimisation, **own)
    return Learner(spec, dataclasses.replace(kind, **options), optimisation, **own)


def weights(learner: Learner) -> Array:
    return learner.state()["parameters"]


def fly_and_update(learner: Learner, updates: int, first_seed: int = 0) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for i in range(updates):
        _, metrics = learner.update(make_batch(learner.policy(), [20, 11, 7], seed=first_seed + i))
    return metrics
