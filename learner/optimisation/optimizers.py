"""Optimisers on one flat vector of parameters.

The arithmetic is torch.optim's, in its fused kernels where there is one; what is left out is its bookkeeping, which for
a network of ten thousand parameters takes several times longer. A learning rate that is a tensor can change between
replays of a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Optimizer = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor], float], None]
"""(parameters [P], gradient [P], learning rate [], memory, ε) -> None: changes the parameters and the memory."""

_ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "amsgrad": False, "maximize": False}
"""torch.optim's defaults, as all the numbers here are."""


def adam(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, memory: dict[str, Tensor], eps: float) -> None:
    """Kingma and Ba 2015, arXiv:1412.6980, algorithm 1."""
    torch._fused_adam_(*_lists(parameters, gradient, memory), lr=learning_rate, weight_decay=0.0, eps=eps, **_ADAM)


def adamw(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, memory: dict[str, Tensor], eps: float) -> None:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    torch._fused_adamw_(*_lists(parameters, gradient, memory), lr=learning_rate, weight_decay=1e-2, eps=eps, **_ADAM)


def _lists(parameters: Tensor, gradient: Tensor, memory: dict[str, Tensor]) -> list[list[Tensor]]:
    step = memory["step"].add_(1)
    return [[parameters], [gradient], [memory["mean"]], [memory["square"]], [], [step]]


def rmsprop(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, memory: dict[str, Tensor], eps: float) -> None:
    """Tieleman and Hinton 2012."""
    square = memory["square"]
    square.mul_(0.99).addcmul_(gradient, gradient, value=1 - 0.99)
    parameters.sub_(learning_rate * gradient / square.sqrt().add_(eps))


def sgd(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, _memory: dict[str, Tensor], _eps: float) -> None:
    """Plain gradient descent."""
    parameters.sub_(learning_rate * gradient)


OPTIMIZERS: dict[str, Optimizer] = {"adam": adam, "adamw": adamw, "rmsprop": rmsprop, "sgd": sgd}


def memory_for(parameters: Tensor) -> dict[str, Tensor]:
    """What an optimiser remembers before its first step: a count of steps, and running moments of the gradient."""
    return {
        "step": torch.zeros((), device=parameters.device),
        "mean": torch.zeros_like(parameters),
        "square": torch.zeros_like(parameters),
    }
