"""What a recorded function does when it is run again."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor

from learner.optimisation.operations import record_operations

WEIGHTS = torch.tensor([1.0, -2.0, 3.0])


def test_operations_run_again_on_other_inputs() -> None:
    def statistics(x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        first, second = x.split([2, 1])
        return first.sum() + second.mean(), [x * y, torch.stack([x, y]).amax(0)]

    recording = record_operations(statistics, [torch.zeros(3), torch.ones(3)])
    assert not recording.elsewhere
    assert recording.outputs[1][1].tolist() == [1, 1, 1]
    x, y = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([5.0, -1.0, 4.0])
    total, (product, largest) = recording.module(x, y)
    assert total == 7
    assert product.tolist() == [5, -2, 16]
    assert largest.tolist() == [5, 2, 4]


def test_a_gradient_is_recorded_with_the_operations_of_its_backward_pass() -> None:
    def gradient(x: Tensor) -> Tensor:
        leaf = WEIGHTS.detach().requires_grad_()
        return torch.autograd.grad((leaf * x).square().sum(), leaf)[0]

    recording = record_operations(gradient, [torch.zeros(3)])
    x = torch.tensor([1.0, 0.5, -1.0])
    with torch.no_grad():
        torch.testing.assert_close(recording.module(*recording.elsewhere, x), 2 * WEIGHTS * x * x)


def test_tensors_from_elsewhere_are_used_as_they_are_now() -> None:
    scale = torch.tensor(2.0)
    recording = record_operations(lambda x: x * scale + x * scale, [torch.ones(2)])
    assert [tensor.data_ptr() for tensor in recording.elsewhere] == [scale.data_ptr()]
    scale.fill_(5.0)
    assert recording.module(*recording.elsewhere, torch.ones(2)).tolist() == [10, 10]


def test_learning_does_not_import_the_compiler() -> None:
    """It would take a second of every start, and 70 MB."""
    script = """
import sys
import tests.learner as examples
from tests.learner import learners
learner = learners.make_learner(examples.make_spec())
learner.update(examples.make_batch(learner.policy(), [40]))
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
