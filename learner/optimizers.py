"""Optimisers as in-place arithmetic on one flat vector of parameters, so that a whole step can be recorded.

The same updates as torch.optim's with their default settings, without its bookkeeping, which for a network of ten
thousand parameters takes longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Optimizer = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], None]
"""(parameters [P], gradient [P], learning rate [], memory) -> None: changes the parameters and the memory."""

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
WEIGHT_DECAY = 1e-2
SMOOTHING = 0.99


def adam(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, memory: dict[str, Tensor]) -> None:
    """Kingma and Ba 2015, arXiv:1412.6980, algorithm 1."""
    step, mean, square = memory["step"], memory["mean"], memory["square"]
    step.add_(1)
    mean.lerp_(gradient, 1 - BETA1)
    square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    denominator = (square / (1 - BETA2**step)).sqrt_().add_(EPSILON)
    parameters.sub_(mean.div(denominator).mul_(learning_rate / (1 - BETA1**step)))


def adamw(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, memory: dict[str, Tensor]) -> None:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    parameters.mul_(1 - learning_rate * WEIGHT_DECAY)
    adam(parameters, gradient, learning_rate, memory)


def rmsprop(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, memory: dict[str, Tensor]) -> None:
    """Tieleman and Hinton 2012."""
    square = memory["square"]
    square.mul_(SMOOTHING).addcmul_(gradient, gradient, value=1 - SMOOTHING)
    parameters.sub_(learning_rate * gradient / square.sqrt().add_(EPSILON))


def sgd(parameters: Tensor, gradient: Tensor, learning_rate: Tensor, _memory: dict[str, Tensor]) -> None:
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
