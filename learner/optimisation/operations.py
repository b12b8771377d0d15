"""Recording of a function's tensor operations, backward pass included, as a graph.

What ``make_fx`` does, for functions of plain tensors of fixed shapes; that one imports the compiler, a second and 800
modules that nothing here uses.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {"numpy", "tolist", "item", "data_ptr", "storage", "untyped_storage"} | {
    f"__{name}__" for name in ("array", "bool", "complex", "dlpack", "float", "format", "index", "int", "repr")
}
"""Methods of a tensor that hand its values to Python."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a function did when it was called once."""

    outputs: Any
    """What it returned."""
    obstacle: str | None
    """Why another call with other inputs might do other operations; None: nothing was seen."""
    module: fx.GraphModule | None
    """Runs the same operations on such inputs; None if there is an obstacle. Each node's ``meta["value"]`` is what it
    was this time."""
    elsewhere: list[Tensor]
    """Tensors from elsewhere (a network's parameters, say) that the module takes before the inputs."""


def record_operations(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Recording:
    """Call ``function(*inputs)``, once, and write down the operations that it runs, below autograd.

    Args:
        function: returns tensors.
        inputs: each a tensor of its own.
    """
    watch = Watch(inputs)
    with watch, watch.operations:
        outputs = function(*inputs)
    recorder = watch.operations
    recorder.graph.output(recorder.nodes_for(outputs))
    module = None if watch.obstacle else fx.GraphModule(nn.Module(), recorder.graph)
    return Recording(outputs, watch.obstacle, module, recorder.elsewhere)


class Watch(TorchFunctionMode):
    """While it and its ``operations`` are entered, these are written down, and what no recording can repeat is noticed.

    Args:
        inputs: of the function that is to be watched, each a tensor of its own.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.obstacle: str | None = None
        self.operations = _Recorder(inputs, self._notice)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READS and resolve_name(func):
            self._notice(f"{resolve_name(func)} reads a tensor's value")
        return func(*args, **(kwargs or {}))

    def _notice(self, what: str) -> None:
        self.obstacle = self.obstacle or what + _place()


class _Recorder(TorchDispatchMode):
    def __init__(self, inputs: Sequence[Tensor], notice: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.elsewhere: list[Tensor] = []
        self._notice = notice
        self._lasting = {_memory(tensor) for tensor in inputs}
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
            self._lasting.add(_memory(tensor))
        return self._nodes[id(tensor)]

    def nodes_for(self, values: Any) -> Any:
        """The same nest of arguments, with nodes in place of tensors."""
        return torch.utils._pytree.tree_map_only(Tensor, self._node, values)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments = self.nodes_for(args), self.nodes_for(kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            self._notice(f"{func} reads a tensor's value")
        elif torch.Tag.dynamic_output_shape in func.tags and not _by_numbers(func, args):
            self._notice(f"{func} gives a tensor whose size depends on values")
        elif any(_memory(tensor) in self._lasting for tensor in _written(func, args, kwargs)):
            self._notice(f"{func} changes a tensor that outlives the minibatch")
        elif any(isinstance(leaf, torch.Generator) for leaf in (*args, *kwargs.values())):
            self._notice(f"{func} draws from a generator of its own")
        value = func(*args, **kwargs)
        self._keep(self.graph.call_function(func, *arguments), value)
        return value


def _memory(tensor: Tensor) -> int:
    """Where its elements are kept; views of one tensor agree."""
    return int(tensor.untyped_storage()._cdata)


def _by_numbers(func: Any, args: Sequence[Any]) -> bool:
    """Whether this is ``x[indices]`` by whole numbers: its shape is that of the indices, whatever they are."""
    indices = args[1] if func is torch.ops.aten.index.Tensor else [None]
    return all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in indices) and len(args) > 1


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operation changes in place."""
    if func._schema.is_mutable:
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[i] if i < len(args) else kwargs.get(argument.name)
                yield from (leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _place() -> str:
    """The line of a user's file that called what was noticed just now."""
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("torch", "learner"):
            return f" ({frame.f_code.co_filename}:{frame.f_lineno})"
    return ""
