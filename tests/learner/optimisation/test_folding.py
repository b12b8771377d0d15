"""Folding changes how often things are computed, never what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from learner.optimisation.folding import fold
from learner.optimisation.operations import record_operations

START = torch.arange(12.0)
INPUTS = torch.linspace(-1, 1, 4)


def cut_and_transposed(state: Tensor, inputs: Tensor) -> Tensor:
    weights, bias = state.split([8, 4])
    return weights.view(4, 2).t() @ inputs + bias[:2]


def constants_alone(state: Tensor, inputs: Tensor) -> Tensor:
    return inputs * (torch.ones_like(state).sum() / 3 - torch.zeros(()))


def constants_written(state: Tensor, inputs: Tensor) -> Tensor:
    """What starts out constant and is then filled in place must start anew each time."""
    total = torch.zeros_like(inputs)
    total[1:].add_(inputs[1:])
    return total.add_(state[0])


def numbers(state: Tensor, inputs: Tensor) -> Tensor:
    return ((inputs * 0.1 + 3) / 7 - 1 >= -0.57).float() + state[:4] * 2 - torch.add(inputs, 1, alpha=3)


def whole_numbers(state: Tensor, inputs: Tensor) -> Tensor:
    return (inputs > 0).long() * 3 // 2 + state[:4]


STEPS = [cut_and_transposed, constants_alone, constants_written, numbers, whole_numbers]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_folded_step_gives_the_same_as_the_state_changes(step: Callable[..., Tensor]) -> None:
    state = START.clone()
    module = record_operations(step, [state, INPUTS]).module
    views = fold(module, [state])
    for scale in (1.0, -0.3, 1e6):
        state.copy_(START * scale)
        assert torch.equal(module(state, *views, INPUTS / scale), step(state, INPUTS / scale))


def operations(step: Callable[..., Tensor]) -> tuple[list[str], int]:
    """What is left of a step: its operations, and how many views it takes."""
    module = record_operations(step, [START, INPUTS]).module
    views = fold(module, [START])
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"], len(views)


def test_what_is_the_same_in_every_step_is_gone() -> None:
    assert operations(cut_and_transposed) == (["aten.mv.default", "aten.add.Tensor"], 2)
    assert operations(constants_alone) == (["aten.mul.Tensor"], 0)


def test_random_numbers_are_drawn_anew_in_every_step() -> None:
    state = START.clone()
    module = record_operations(lambda _state, inputs: inputs + torch.rand(4), [state, INPUTS]).module
    fold(module, [state])
    assert not torch.equal(module(state, INPUTS), module(state, INPUTS))
