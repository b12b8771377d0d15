"""One call for a whole step of the optimiser: small networks spend their time on launching operations, not computing.

On the CPU the gradient (forward pass, loss, backward pass) is recorded once as a flat list of tensor operations,
simplified (folding.py), and replayed by TorchScript's interpreter, without Python or autograd: a sixth of eager
PyTorch's time for a minibatch of 64 and half for 1,024, with the same numbers to the last bit. (``torch.compile`` would
need a C++ compiler on every machine and takes most of a minute.) On a GPU gradient and step become one CUDA graph.
Either way the loss stays an ordinary function, which nobody differentiates by hand.

A recording repeats the operations of one minibatch. A loss that does others for other minibatches (it reads a tensor's
value, or keeps something in Python or in a tensor) is called for each, as if there were no recording: the first step
is watched, steps 2, 4, 8, … are taken both ways and compared, and what the loss can see is looked at between updates.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from learner.optimisation.folding import fold
from learner.optimisation.operations import Recording, Watch, record_operations
from learner.optimisation.remembered import Drawn, remembered

Gradient = Callable[..., tuple[Tensor, Tensor]]
Descend = Callable[[Tensor, Tensor], Tensor]


class RecordedStep:
    """A faster form of this, for inputs of the shapes and types of the first call's::

        def step(*inputs):
            return descend(*gradient(*inputs))

    What it answers may be overwritten by the next call. ``gradient`` is called once a step at most.

    Args:
        gradient: answers metrics and a direction.
        descend: changes the state in place, and answers the metrics.
        state: tensors that keep their place in memory.
        loss: what of ``gradient`` is the user's, and may keep something in Python from step to step.
    """

    def __init__(self, gradient: Gradient, descend: Descend, state: Sequence[Tensor], loss: Any = None) -> None:
        self._gradient, self._descend, self._state, self._loss = gradient, descend, state, loss
        self._steps = 0
        self._replay: Gradient | None = None
        self._graph: _CudaGraph | None = None
        self._kept: dict[str, Any] | None = None
        """What the loss could see after the last step that was looked at; None: none was."""
        self.obstacle: str | None = None
        """Why steps are not replayed; None: they are."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step; answers the metrics."""
        self._steps += 1
        is_watched = not self._steps & (self._steps - 1)
        if is_watched:
            self.look()
        if self.obstacle is not None:
            return self._descend(*self._gradient(*inputs))
        if not is_watched:
            return self._graph.step(*inputs) if self._graph else self._descend(*self._replayed(*inputs))
        metrics = self._first(inputs) if self._steps == 1 else self._compared(inputs)
        self.look(in_step=True)
        return metrics

    def look(self, in_step: bool = False) -> None:
        """Notice whether what the loss can see has changed since the last look; between steps others may draw."""
        if self.obstacle is not None:
            return
        before, self._kept = self._kept, remembered(self._loss)
        if before is None:
            return
        for name, value in self._kept.items():
            if before.get(name) != value and (in_step or not isinstance(value, Drawn)):
                self.obstacle = f"{name} changes from minibatch to minibatch"

    def _replayed(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        assert self._replay is not None
        return self._replay(*inputs)

    def _first(self, inputs: Sequence[Tensor]) -> Tensor:
        inputs = [tensor.view_as(tensor) for tensor in inputs]  # one given twice would be recorded as one input
        if inputs[0].is_cuda:
            watch = Watch(inputs)
            with watch, watch.operations:
                outputs = self._gradient(*inputs)
            self.obstacle = watch.obstacle
        else:
            recording = record_operations(self._gradient, inputs)
            self.obstacle, outputs = recording.obstacle, recording.outputs
            if self.obstacle is None:
                try:
                    self._replay = flat_operations(recording, inputs)
                except RuntimeError as error:
                    self.obstacle = f"TorchScript cannot take it down ({str(error).strip().splitlines()[0]})"
        return self._descend(*outputs)

    def _compared(self, inputs: Sequence[Tensor]) -> Tensor:
        """A step that is taken both ways. Eager PyTorch's is the one that counts."""
        device = inputs[0].device
        with _same_random_numbers(device):
            replayed = self._peek(inputs) if device.type == "cuda" else self._replayed(*inputs)
            replayed = replayed[0].clone(), replayed[1].clone()
        eager = self._gradient(*inputs)
        tolerance = 1e-3 if device.type == "cuda" else 0.0  # a GPU may add up in another order
        for mine, theirs in zip(replayed, eager, strict=True):
            if not torch.allclose(mine, theirs, rtol=tolerance, atol=0.01 * tolerance, equal_nan=True):
                self.obstacle = f"its recording makes something else of minibatch {self._steps}"
        return self._descend(*eager)

    def _peek(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the CUDA graph makes of a minibatch, with the state left as it is."""
        before = [tensor.clone() for tensor in self._state]
        if self._graph is None:
            self._graph = _CudaGraph(self._gradient, self._descend, inputs)
        for tensor, value in zip(self._state, before, strict=True):
            tensor.copy_(value)
        self._graph.step(*inputs)
        for tensor, value in zip(self._state, before, strict=True):
            tensor.copy_(value)
        return self._graph.outputs


@contextlib.contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """What comes after draws the random numbers that were drawn inside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def flat_operations(recording: Recording, example: Sequence[Tensor]) -> Gradient:
    """A recorded gradient as one call.

    Raises:
        RuntimeError: TorchScript has no form for one of its operations.
    """
    module, fixed = recording.module, list(recording.elsewhere)
    assert module is not None
    fixed += fold(module, fixed)
    example = [tensor.clone() for tensor in example]
    with warnings.catch_warnings(), torch.no_grad(), _same_random_numbers(example[0].device):
        warnings.simplefilter("ignore")  # TorchScript is frozen, which suits a pinned version; no successor is as light
        traced = torch.jit.trace(module, (*fixed, *example), check_trace=False).forward

    def replay(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            metrics, direction = traced(*fixed, *inputs)
        return metrics, direction

    return replay


class _CudaGraph:
    """Gradient and step as one CUDA graph. Making it takes a few steps: the state is to be put back afterwards."""

    def __init__(self, gradient: Gradient, descend: Descend, example: Sequence[Tensor]) -> None:
        self._buffers = [tensor.clone() for tensor in example]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # capture needs a warm-up on a side stream: memory is found
            for _ in range(3):
                descend(*gradient(*self._buffers))
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.outputs = gradient(*self._buffers)
            self._metrics = descend(*self.outputs)

    def step(self, *inputs: Tensor) -> Tensor:
        for buffer, tensor in zip(self._buffers, inputs, strict=True):
            buffer.copy_(tensor)
        self._graph.replay()
        return self._metrics
