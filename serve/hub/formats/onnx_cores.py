"""The recurrent cores of ``actors/cores.py`` as nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from actors.policy import Policy
from actors.trunk_graph import Graph


def _sums(policy: Policy, graph: Graph, x: str, memory: str, side: str) -> str:
    """The input's or the memory's part of the gates' sums, [batch, gates * units]."""
    names = [f"core_{side}_{kind}" for kind in "wb"]
    w, b = (graph.constant(name, policy.weights[name]) for name in names)
    product = graph.add("MatMul", [x if side == "input" else memory, w], f"core_{side}_product")
    return graph.add("Add", [product, b], f"core_{side}_sums")


def _split(graph: Graph, x: str, units: int, parts: list[str]) -> None:
    """Name parts of ``units`` columns each."""
    sizes = graph.constant(f"sizes_of_{x}", np.full(len(parts), units, np.int64))
    graph.nodes.append(helper.make_node("Split", [x, sizes], parts, axis=1))


def _gru(policy: Policy, graph: Graph, x: str) -> str:
    """As actors.cores.GRU: the name of what the output layer reads."""
    units = policy.spec.network.memory_size
    sides = ("input", "hidden")
    for side in sides:
        sums = _sums(policy, graph, x, "memory", side)
        _split(graph, sums, units, [f"{gate}_of_{side}" for gate in ("reset", "update", "new")])
    for gate in ("reset", "update"):
        graph.add("Add", [f"{gate}_of_{side}" for side in sides], f"{gate}_sum")
        graph.add("Sigmoid", [f"{gate}_sum"], gate)
    graph.add("Mul", ["reset", "new_of_hidden"], "recalled")
    graph.add("Add", ["new_of_input", "recalled"], "new_sum")
    graph.add("Tanh", ["new_sum"], "new")
    graph.add("Sub", ["memory", "new"], "old_less_new")
    graph.add("Mul", ["update", "old_less_new"], "kept")
    graph.add("Add", ["new", "kept"], "remembered")
    graph.add("Identity", ["remembered"], "next_memory")
    return "remembered"


def _lstm(policy: Policy, graph: Graph, x: str) -> str:
    """As actors.cores.LSTM: the name of what the output layer reads."""
    units = policy.spec.network.memory_size
    _split(graph, "memory", units, ["memory_shown", "memory_cell"])
    sums = [_sums(policy, graph, x, "memory_shown", side) for side in ("input", "hidden")]
    gates = ["enter", "keep", "new", "leave"]
    _split(graph, graph.add("Add", sums, "core_sums"), units, [f"{gate}_sum" for gate in gates])
    for gate in gates:
        graph.add("Tanh" if gate == "new" else "Sigmoid", [f"{gate}_sum"], gate)
    graph.add("Mul", ["keep", "memory_cell"], "kept")
    graph.add("Mul", ["enter", "new"], "entered")
    graph.add("Add", ["kept", "entered"], "cell")
    graph.add("Tanh", ["cell"], "cell_shown")
    graph.add("Mul", ["leave", "cell_shown"], "remembered")
    graph.add("Concat", ["remembered", "cell"], "next_memory", axis=1)
    return "remembered"


CORES: dict[str, Callable[[Policy, Graph, str], str]] = {"gru": _gru, "lstm": _lstm}
"""Each adds a core, its inputs ``memory`` and the name that is given, its output ``next_memory``."""
