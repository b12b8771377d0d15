"""One call for a whole step of the optimiser: small networks spend their time on launching operations, not computing.

On the CPU the step (forward pass, loss, backward pass, optimiser) is recorded once as a flat list of tensor operations
and replayed by TorchScript's interpreter, without Python or autograd: a fifth of eager PyTorch's time for a minibatch
of 64 and half for 1,024, with the same numbers to the last bit. (``torch.compile`` would need a C++ compiler on every
machine and takes most of a minute.) On a GPU the same step becomes one CUDA graph. Either way the loss stays an
ordinary function, which nobody differentiates by hand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

Step = Callable[..., Tensor]


def record(step: Step, state: Sequence[Tensor], example: Sequence[Tensor]) -> Callable[..., Tensor]:
    """A faster ``lambda *inputs: step(*state, *inputs)``, for inputs of the shapes and types of ``example``.

    Args:
        step: changes its state in place and returns one tensor. It must not branch on the value of a tensor.
        state: tensors that keep their place in memory; recording leaves their values as they are.
        example: inputs to record with.

    Returns:
        The function; the next call may overwrite what it returned.
    """
    if state[0].is_cuda:
        return _cuda_graph(step, state, example)
    return _flat_operations(step, state, example)


def _flat_operations(step: Step, state: Sequence[Tensor], example: Sequence[Tensor]) -> Callable[..., Tensor]:
    scratch = [*(tensor.clone() for tensor in state), *example]  # recording takes the step
    graph = make_fx(step)(*scratch)
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.detach.default:  # no autograd at replay: nothing to detach from
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is frozen, which suits a pinned version; no successor is as light
        traced = torch.jit.trace(graph, tuple(scratch), check_trace=False).forward

    def replay(*inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = traced(*state, *inputs)
        return output

    return replay


def _cuda_graph(step: Step, state: Sequence[Tensor], example: Sequence[Tensor]) -> Callable[..., Tensor]:
    buffers = [tensor.clone() for tensor in example]
    before = [tensor.clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # capture needs a warm-up on a side stream: libraries initialise, memory is found
        for _ in range(3):
            step(*state, *buffers)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step(*state, *buffers)
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)

    def replay(*inputs: Tensor) -> Tensor:
        for buffer, tensor in zip(buffers, inputs, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        return output

    return replay
