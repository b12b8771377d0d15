"""Losses as people write them, which no recording of one minibatch can repeat for the next."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.algorithms.policy_gradient import approx_kl
from learner.algorithms.ppo import PPO
from learner.networks.actor_critic import Outputs
from tests.learner.learners import Metrics, OwnFunction, Steps

Terms = tuple[Tensor, Metrics]
_calls = 0


def _basis(outputs: Outputs, batch: Steps) -> tuple[Tensor, Tensor]:
    """A loss, and a divergence that passes 0.001 after some minibatches."""
    log_ratios = outputs.log_probs - batch.log_probs
    loss = -(log_ratios.exp() * batch.advantages).mean() + (outputs.values - batch.returns).square().mean()
    return loss, approx_kl(log_ratios)


def _penalised(large: Callable[[Tensor], Any]) -> OwnFunction:
    def loss(outputs: Outputs, batch: Steps, _config: PPO) -> Terms:
        basis, kl = _basis(outputs, batch)
        if large(kl):
            basis = basis + 30 * outputs.entropies.mean()
        return basis, {"kl": kl}

    return loss


def _counted(_outputs: Outputs, _batch: Steps, basis: Tensor) -> Tensor:
    global _calls  # noqa: PLW0603, a global is one of the places where people count
    _calls += 1
    return basis * 2 if _calls > 7 else basis


class _Counter:
    """A loss with a state of its own."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Outputs, batch: Steps, _config: PPO) -> Terms:
        self.calls += 1
        return _basis(outputs, batch)[0] * (2 if self.calls > 7 else 1), {}


def _with_state(kind: str) -> OwnFunction:
    count, seen = 0, list[int]()
    numbers = itertools.count()
    average = torch.zeros(())
    rebound = torch.zeros(())

    def loss(outputs: Outputs, batch: Steps, _config: PPO) -> Terms:
        nonlocal count, rebound
        basis, kl = _basis(outputs, batch)
        if kind == "counter in a closure":
            count += 1
            basis = basis * 2 if count > 7 else basis
        elif kind == "list":
            seen.append(1)
            basis = basis * 2 if len(seen) > 7 else basis
        elif kind == "iterator":
            basis = basis / (1 + next(numbers))
        elif kind == "average in place":
            average.mul_(0.9).add_(0.1 * basis.detach())
            basis = basis * average
        elif kind == "average rebound":
            rebound = 0.9 * rebound + 0.1 * basis.detach()
            basis = basis * rebound
        elif kind == "Python's random numbers":
            basis = basis * random.random()
        elif kind == "numpy's random numbers":
            basis = basis * float(np.random.random())
        elif kind == "mask":
            basis = basis + outputs.entropies[batch.advantages > 0].mean()
        elif kind == "masked_select":
            basis = basis + outputs.entropies.masked_select(batch.advantages > 0).mean()
        elif kind == "nonzero":
            basis = basis + outputs.entropies[(batch.advantages > 0).nonzero().squeeze(1)].mean()
        else:
            basis = _counted(outputs, batch, basis)
        return basis, {"kl": kl}

    return loss


LARGE: dict[str, Callable[[Tensor], Any]] = {
    "if": lambda kl: kl > 1e-3,
    "item": lambda kl: kl.item() > 1e-3,
    "float": lambda kl: float(kl) > 1e-3,
    "tolist": lambda kl: kl.tolist() > 1e-3,
    "numpy": lambda kl: kl.numpy() > 1e-3,
    "asarray": lambda kl: np.asarray(kl) > 1e-3,
    "format": lambda kl: f"{kl:.3f}" > "0.001",
}
STATES = (
    "counter",
    "counter in a closure",
    "list",
    "iterator",
    "average in place",
    "average rebound",
    "Python's random numbers",
    "numpy's random numbers",
    "mask",
    "masked_select",
    "nonzero",
)


def make(kind: str) -> OwnFunction:
    """A new loss of a kind of ``KINDS``."""
    global _calls  # noqa: PLW0603
    _calls = 0
    if kind == "object":
        return _Counter()
    return _penalised(LARGE[kind]) if kind in LARGE else _with_state(kind)


KINDS = (*LARGE, *STATES, "object")
