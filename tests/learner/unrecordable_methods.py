"""The same where people write their own into the methods of an algorithm, or its module."""

from __future__ import annotations

import collections
import dataclasses
import random
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from learner.algorithms.ppo import PPO
from learner.networks.actor_critic import ActorCritic
from tests.learner.learners import Metrics


class Slotted:
    """Has no ``__dict__``."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class Kept:
    """What the module keeps, anew for each test."""

    calls = 0
    seen: ClassVar[collections.deque[int]] = collections.deque()
    text = bytearray()
    slotted = Slotted()
    generator = torch.Generator()
    rng = np.random.default_rng()


def forget() -> None:
    """Begin again."""
    Kept.calls, Kept.seen, Kept.text, Kept.slotted = 0, collections.deque(), bytearray(), Slotted()
    Kept.generator.manual_seed(3)
    Kept.rng = np.random.default_rng(3)
    random.seed(3)
    np.random.seed(3)
    if "calls" in vars(Own):
        del Own.calls  # type: ignore[attr-defined]
    vars(Own.policy_loss).clear()


def _helped() -> int:
    Kept.calls += 1
    return Kept.calls


@dataclasses.dataclass(frozen=True)
class Own(PPO):
    """PPO, but for a weight that changes from some minibatch on."""

    kind_: str = ""

    def policy_loss(self, log_probs: Tensor, steps: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        """PPO's, at times more."""
        loss, metrics = super().policy_loss(log_probs, steps)
        return (loss * 2 if self._is_late() else loss) * self._random(), metrics

    def _is_late(self) -> bool:
        kept: Any = Kept
        if self.kind_ == "a helper's counter":
            return _helped() > 20
        if self.kind_ == "a class's counter":
            type(self).calls = getattr(type(self), "calls", 0) + 1  # type: ignore[attr-defined]
            return bool(type(self).calls > 20)  # type: ignore[attr-defined]
        if self.kind_ == "a function's counter":
            method: Any = Own.policy_loss
            method.calls = getattr(method, "calls", 0) + 1
            return bool(method.calls > 20)
        if self.kind_ == "a deque":
            kept.seen.append(1)
            return len(kept.seen) > 20
        if self.kind_ == "bytes":
            kept.text.append(1)
            return len(kept.text) > 20
        if self.kind_ == "slots":
            kept.slotted.calls += 1
            return bool(kept.slotted.calls > 20)
        draws = {"Python's numbers": random.random, "numpy's numbers": np.random.rand}
        draw = kept.rng.random if self.kind_ == "a generator's numbers" else draws.get(self.kind_)
        return bool(draw and draw() < 0.1)

    def _random(self) -> Tensor | float:
        return torch.rand((), generator=Kept.generator) if self.kind_ == "torch's generator" else 1.0

    def loss(self, network: ActorCritic, steps: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        """PPO's, by a coefficient that the network may carry."""
        loss, metrics = super().loss(network, steps)
        return loss * getattr(network, "coefficient", 1.0), metrics

    def begin(self, network: Any, steps: int) -> None:
        """Sets the coefficient by a schedule."""
        super().begin(network, steps)
        if not hasattr(network, "own"):
            network.own = torch.ones(3)  # which stays as it is
        if self.kind_ == "a schedule in begin":
            network.coefficient = 1 + steps / 100

    def follow(self, network: Any, gradient_steps: int) -> None:
        """Sets it, too."""
        super().follow(network, gradient_steps)
        if self.kind_ == "a schedule in follow":
            network.coefficient = 1 + gradient_steps / 20


KINDS = (
    "a helper's counter",
    "a class's counter",
    "a function's counter",
    "a deque",
    "bytes",
    "slots",
    "Python's numbers",
    "numpy's numbers",
    "a generator's numbers",
    "torch's generator",
    "a schedule in begin",
    "a schedule in follow",
)
