"""Recording of a function's tensor operations, backward pass included, as a graph.

What ``make_fx`` does, for functions of plain tensors of fixed shapes; that one imports the compiler, a second and 800
modules that nothing here uses.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode


def record_operations(function: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[fx.GraphModule, list[Tensor]]:
    """Call ``function(*inputs)`` and write down the operations that it runs, below autograd.

    Args:
        function: returns tensors; it must not branch on their values.
        inputs: each a tensor of its own.

    Returns:
        A module that runs the same operations on such inputs, and the tensors from elsewhere (a network's parameters,
        say) that it takes before them. Each node's ``meta["value"]`` is what it was this time.
    """
    recorder = _Recorder(inputs)
    with recorder:
        outputs = function(*inputs)
    recorder.graph.output(recorder.nodes_for(outputs))
    return fx.GraphModule(nn.Module(), recorder.graph), recorder.elsewhere


class _Recorder(TorchDispatchMode):
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.elsewhere: list[Tensor] = []
        self._nodes: dict[int, fx.Node] = {}
        for i, tensor in enumerate(inputs):
            self._keep(self.graph.placeholder(f"input_{i}"), tensor)
        self._first = next(iter(self.graph.nodes))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # there is no dynamo to skip, and to skip it is to import it

    def _keep(self, node: fx.Node, value: Any) -> None:
        node.meta["value"] = value  # also keeps it alive, so that its id stays its own
        if isinstance(value, Tensor):
            self._nodes[id(value)] = node
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                self._keep(self.graph.call_function(operator.getitem, (node, i)), item)

    def _node(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self._nodes:
            with self.graph.inserting_before(self._first):
                self._keep(self.graph.placeholder(f"elsewhere_{len(self.elsewhere)}"), tensor)
            self.elsewhere.append(tensor.detach())
        return self._nodes[id(tensor)]

    def nodes_for(self, values: Any) -> Any:
        """The same nest of arguments, with nodes in place of tensors."""
        return torch.utils._pytree.tree_map_only(Tensor, self._node, values)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments = self.nodes_for(args), self.nodes_for(kwargs)
        value = func(*args, **kwargs)
        self._keep(self.graph.call_function(func, *arguments), value)
        return value
