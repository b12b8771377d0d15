"""One call for a whole step of the optimiser: small networks spend their time on launching operations, not computing.

On the CPU the gradient (forward pass, loss, backward pass) is recorded once as a flat list of tensor operations,
simplified (folding.py), and replayed by TorchScript's interpreter, without Python or autograd: a sixth of eager
PyTorch's time for a minibatch of 64 and half for 1,024, with the same numbers to the last bit. (``torch.compile`` would
need a C++ compiler on every machine and takes most of a minute.) On a GPU gradient and step become one CUDA graph.
Either way the loss stays an ordinary function, which nobody differentiates by hand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from learner.folding import fold
from learner.operations import record_operations

Gradient = Callable[..., tuple[Tensor, Tensor]]
Descend = Callable[[Tensor, Tensor], Tensor]


def record(
    gradient: Gradient, descend: Descend, state: Sequence[Tensor], example: Sequence[Tensor]
) -> Callable[..., Tensor]:
    """A faster form of this, for inputs of the shapes and types of ``example``::

        def step(*inputs):
            return descend(*gradient(*inputs))

    Args:
        gradient: answers metrics and a direction; changes nothing, and must not branch on the values of tensors.
        descend: changes the state in place, and answers the metrics.
        state: tensors that keep their place in memory. Recording leaves their values as they are.
        example: inputs to record with.

    Returns:
        The function; its next call may overwrite what it returned.
    """
    if example[0].is_cuda:
        return _cuda_graph(gradient, descend, state, example)
    replay = _flat_operations(gradient, example)

    def step(*inputs: Tensor) -> Tensor:
        return descend(*replay(*inputs))

    return step


def _flat_operations(gradient: Gradient, example: Sequence[Tensor]) -> Gradient:
    example = [tensor.clone() for tensor in example]  # a tensor given twice would be recorded as one input
    module, fixed = record_operations(gradient, example)
    fixed += fold(module, fixed)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is frozen, which suits a pinned version; no successor is as light
        traced = torch.jit.trace(module, (*fixed, *example), check_trace=False).forward

    def replay(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            metrics, direction = traced(*fixed, *inputs)
        return metrics, direction

    return replay


def _cuda_graph(
    gradient: Gradient, descend: Descend, state: Sequence[Tensor], example: Sequence[Tensor]
) -> Callable[..., Tensor]:
    buffers = [tensor.clone() for tensor in example]
    before = [tensor.clone() for tensor in state]

    def step() -> Tensor:
        return descend(*gradient(*buffers))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # capture needs a warm-up on a side stream: libraries initialise, memory is found
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)

    def replay(*inputs: Tensor) -> Tensor:
        for buffer, tensor in zip(buffers, inputs, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        return output

    return replay
