"""The cores of ``actors/cores.py`` and ``actors/transformer.py`` as nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from actors.layers import LAYER_NORM_EPS
from actors.policy import Policy
from actors.transformer import alibi
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


def _transformer(policy: Policy, graph: Graph, x: str) -> str:
    """As actors.transformer.Transformer: the name of what the output layer reads; ``acted`` adds the rest."""
    network = policy.spec.network
    units, heads, window = network.memory_size, network.memory_heads, network.memory_window
    rings = [f"{kind}_of_{i}" for i in range(network.memory_layers) for kind in ("keys", "values")]
    sizes = [units, 1, 1, policy.spec.action.inputs, *[window * units] * len(rings)]
    split = graph.constant("sizes_of_memory", np.array(sizes, np.int64))
    parts = ["read_before", "return_before", "steps", "last_action", *rings]
    graph.nodes.append(helper.make_node("Split", ["memory", split], parts, axis=1))
    column = graph.constant("column", np.array([-1, 1], np.int64))
    graph.add("Reshape", ["return_to_come", column], "return_column")
    graph.add("Add", ["steps", graph.constant("one", np.float32(1))], "next_steps")

    window_ = graph.constant("window", np.array(window, np.int64))
    graph.add("Cast", ["steps"], "whole_steps", to=TensorProto.INT64)
    graph.add("Mod", ["whole_steps", window_], "place")  # [batch, 1]
    graph.add("Equal", ["place", graph.constant("places", np.arange(window))], "is_place")  # [batch, window]
    last = graph.constant("last_axis", np.array([-1], np.int64))
    graph.add("Unsqueeze", ["is_place", last], "is_written")
    graph.add("Add", ["place", window_], "when_full")
    graph.add("Min", ["whole_steps", "when_full"], "row")
    graph.add("Squeeze", ["row", last], "row_of_bias")
    graph.add("Gather", [graph.constant("alibi", alibi(heads, window)), "row_of_bias"], "bias", axis=0)

    def weight(name: str) -> str:
        return graph.constant(f"core_{name}", policy.weights[f"core_{name}"])

    graph.add("Sub", ["return_column", weight("return_mean")], "centred_return")
    graph.add("Div", ["centred_return", weight("return_std")], "standardised_return")
    graph.add("Mul", ["standardised_return", weight("return_w")], "return_token")
    graph.add("MatMul", [x, weight("token_w")], "seen_token")
    graph.add("MatMul", ["last_action", weight("action_w")], "action_token")
    graph.add("Sum", ["seen_token", "action_token", "return_token", weight("token_b")], "token")

    shapes = {
        name: graph.constant(f"shape_of_{name}", np.array(shape, np.int64))
        for name, shape in {
            "kept": (-1, window, units),
            "row": (-1, 1, units),
            "each_head": (-1, window, heads, units // heads),
            "query": (-1, heads, units // heads, 1),
            "attended": (-1, units),
            "flat": (-1, window * units),
        }.items()
    }
    scale = graph.constant("scale_of_scores", np.float32((units // heads) ** -0.5))

    def linear(y: str, kind: str, i: int) -> str:
        product = graph.add("MatMul", [y, weight(f"{i}_{kind}_w")], f"{kind}_product_{i}")
        return graph.add("Add", [product, weight(f"{i}_{kind}_b")], f"{kind}_{i}")

    def normal(y: str, kind: str) -> str:
        inputs = [y, weight(f"{kind}scale"), weight(f"{kind}shift")]
        return graph.add("LayerNormalization", inputs, f"{kind}normal", axis=-1, epsilon=LAYER_NORM_EPS)

    def kept(kind: str, i: int, perm: list[int]) -> str:
        """The ring with this step's row, for each head: [batch, …]."""
        before = graph.add("Reshape", [f"{kind}_of_{i}", shapes["kept"]], f"{kind}_before_{i}")
        row = graph.add("Reshape", [f"{kind}_row_{i}", shapes["row"]], f"{kind}_new_{i}")
        after = graph.add("Where", ["is_written", row, before], f"{kind}_after_{i}")
        graph.add("Reshape", [after, shapes["flat"]], f"next_{kind}_of_{i}")
        each = graph.add("Reshape", [after, shapes["each_head"]], f"{kind}_each_{i}")
        return graph.add("Transpose", [each], f"{kind}_{i}", perm=perm)

    x = "token"
    for i in range(network.memory_layers):
        _split(
            graph,
            linear(normal(x, f"{i}_attend_"), "heads", i),
            units,
            [f"query_row_{i}", f"keys_row_{i}", f"values_row_{i}"],
        )
        keys, values = (kept(kind, i, [0, 2, 1, 3]) for kind in ("keys", "values"))
        query = graph.add("Reshape", [f"query_row_{i}", shapes["query"]], f"query_{i}")
        products = graph.add("Squeeze", [graph.add("MatMul", [keys, query], f"products_{i}"), last], f"unscaled_{i}")
        scaled = graph.add("Mul", [products, scale], f"scaled_{i}")
        scores = graph.add("Add", [scaled, "bias"], f"scores_{i}")
        shares = graph.add("Softmax", [scores], f"shares_{i}", axis=-1)
        second = graph.constant(f"second_last_axis_{i}", np.array([-2], np.int64))
        rows = graph.add("Unsqueeze", [shares, second], f"shares_row_{i}")
        attended = graph.add("MatMul", [rows, values], f"attended_by_heads_{i}")
        attended = graph.add("Reshape", [attended, shapes["attended"]], f"attended_{i}")
        x = graph.add("Add", [x, linear(attended, "joined", i)], f"between_{i}")
        wide = graph.add("Relu", [linear(normal(x, f"{i}_feed_"), "wide", i)], f"widened_{i}")
        x = graph.add("Add", [x, linear(wide, "narrow", i)], f"block_{i}")
    return graph.add("Identity", [normal(x, "")], "remembered")


def acted(policy: Policy, graph: Graph, action: str) -> None:
    """Add what a transformer remembers of a step, with the action that was taken, [batch, inputs] as it sees it."""
    layers = range(policy.spec.network.memory_layers)
    rings = [f"next_{kind}_of_{i}" for i in layers for kind in ("keys", "values")]
    graph.add("Concat", ["remembered", "return_column", "next_steps", action, *rings], "next_memory", axis=1)


CORES: dict[str, Callable[[Policy, Graph, str], str]] = {"gru": _gru, "lstm": _lstm, "transformer": _transformer}
"""Each adds a core, its inputs ``memory`` and the name that is given, its output ``next_memory``."""
