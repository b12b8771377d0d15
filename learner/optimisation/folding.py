"""Partial evaluation of a recorded step: what comes out the same in every step is worked out once.

A third of a small network's step is such bookkeeping: cutting the layers' weights out of the flat parameter vector,
transposing them, making tensors of numbers, and the first links of the backward pass, which depend on shapes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

aten = torch.ops.aten

SHAPED_LIKE = (aten.ones_like.default, aten.zeros_like.default, aten.new_ones.default, aten.new_zeros.default)
"""Operations that look at the shape and type of their input, not at its values."""

TENSOR_FORM = {
    getattr(aten, name).Scalar: getattr(aten, name).Tensor
    for name in ("add", "sub", "mul", "div", "ge", "gt", "le", "lt", "eq", "ne")
}
"""Operations of a tensor and a number, and the same of two tensors."""


def _keep_linear_layers_whole(graph: fx.Graph) -> None:
    """Write ``b + x @ w`` as a linear layer, which TorchScript does not take apart: a product and a sum round otherwise
    on some CPUs."""
    for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
        bias, x, w = node.args
        if bias.meta["value"].ndim != 1 or node.kwargs:
            continue
        with graph.inserting_before(node):
            transposed = graph.call_function(aten.t.default, (w,))
            layer = graph.call_function(aten.linear.default, (x, transposed, bias))
        transposed.meta["value"], layer.meta["value"] = w.meta["value"].t(), node.meta["value"]
        node.replace_all_uses_with(layer)
        graph.erase_node(node)


def fold(module: fx.GraphModule, state: Sequence[Tensor]) -> list[Tensor]:
    """Simplify a recorded step in place.

    Constants (numbers, and what is computed from nothing else) become buffers of the module. Views of the state become
    inputs, between the state and the other inputs.

    Args:
        module: of ``record_operations``.
        state: its first inputs: tensors that keep their place in memory from step to step, while their values change.

    Returns:
        The views of the state, in the order in which the module takes them.
    """
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=aten.detach.default):  # there is no autograd at replay
        node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    _keep_linear_layers_whole(graph)
    state_nodes = graph.find_nodes(op="placeholder")[: len(state)]
    views, constants = set(state_nodes), set[fx.Node]()
    written = _written(graph)
    for node in graph.nodes:
        if node.op != "call_function" or node in written or _is_random(node):
            continue
        inputs = set(node.all_input_nodes)
        if node.target in SHAPED_LIKE or inputs <= constants:
            constants.add(node)
        elif inputs <= views and _is_view(node):
            views.add(node)
        else:
            _take_number_as_tensor(module, node)
    for node in list(graph.nodes):
        if node in constants and isinstance(node.meta["value"], Tensor):
            node.replace_all_uses_with(_buffer(module, node, node.meta["value"]))
    taken = [node for node in graph.nodes if node in views - set(state_nodes) and not set(node.users) <= views]
    for i, node in enumerate(taken):
        with graph.inserting_before(graph.find_nodes(op="placeholder")[len(state) + i]):
            node.replace_all_uses_with(graph.placeholder(f"view_{i}"))
    graph.eliminate_dead_code()
    module.recompile()
    return [node.meta["value"].detach() for node in taken]


def _buffer(module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    """A node that stands for a constant."""
    name = f"constant_{len(list(module.buffers()))}"
    module.register_buffer(name, value.detach())
    with module.graph.inserting_before(before):
        return module.graph.get_attr(name)


def _take_number_as_tensor(module: fx.GraphModule, node: fx.Node) -> None:
    """Let ``tensor ∘ number`` use a tensor made once, of the type that PyTorch would make it in every step."""
    target = TENSOR_FORM.get(node.target, node.target)
    if not (isinstance(target, OpOverload) and target._overloadname == "Tensor" and len(node.args) == 2):
        return
    tensor, number = node.args
    value = tensor.meta.get("value") if isinstance(tensor, fx.Node) else None
    if isinstance(number, int | float) and value is not None and value.is_floating_point():
        node.args = (tensor, _buffer(module, node, torch.tensor(number, dtype=value.dtype)))
        node.target = target


def _is_view(node: fx.Node) -> bool:
    """Whether the result shares the memory of the inputs."""
    if not isinstance(node.target, OpOverload):  # an item of a list of views
        return True
    return any(result.alias_info is not None for result in node.target._schema.returns)


def _is_random(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _written(graph: fx.Graph) -> set[fx.Node]:
    """What is changed in place, directly or through a view, and the operations that do so."""
    written: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op != "call_function":
            continue
        if node in written and _is_view(node):
            written.update(node.all_input_nodes)
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            written.add(node)
            for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    written.update(source for source in node.all_input_nodes if source in _nodes_in(value))
    return written


def _nodes_in(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found
