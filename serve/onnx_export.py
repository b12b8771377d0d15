"""A policy as an ONNX graph, built from its numpy weights, to act wherever there is an ONNX runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actors.distributions import Categorical, Distribution, Gaussian
from actors.errors import UserError
from actors.files import replacing
from actors.policy import NORMALIZED_LIMIT, Policy

_OPSET, _IR_VERSION = 17, 8
"""Of 2022: old enough for any runtime in use, and the graph needs nothing newer."""
_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}


class _Graph:
    """Nodes in the order in which they are computed; each has one output, named after what it holds."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def to_onnx(policy: Policy) -> onnx.ModelProto:
    """The policy's greedy actions, and the distribution that they come from.

    Input ``observation`` [batch, *obs] of ``spec.observation_dtype``. Outputs of a categorical policy:
    ``action`` [batch] int64, ``probabilities`` [batch, A]; of a Gaussian one: ``action`` [batch, *act] within its
    bounds, ``mean`` [batch, *act], ``std`` [*act], in the actions' units; all float32.

    Returns:
        The model, checked.

    Raises:
        UserError: nobody has written down how its actions are distributed.
    """
    spec, graph = policy.spec, _Graph()
    parameters = _network(policy, graph)
    head = _HEADS.get(type(policy.distribution))
    if head is None:
        raise UserError(f"{spec.actions} actions have no form in ONNX yet")
    outputs = head(policy, graph, parameters)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.observation_dtype))
    observation = helper.make_tensor_value_info("observation", kind, ["batch", *spec.observation_shape])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "policy", [observation], outputs, graph.constants),
        producer_name="touchdown",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, {"env_id": spec.env_id, "version": str(spec.version)})
    onnx.checker.check_model(model, full_check=True)
    return model


def _categorical(policy: Policy, graph: _Graph, logits: str) -> list[onnx.ValueInfoProto]:
    graph.add("ArgMax", [logits], "action", axis=1, keepdims=0)
    graph.add("Softmax", [logits], "probabilities", axis=1)
    return [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", policy.spec.action_size]),
    ]


def _gaussian(policy: Policy, graph: _Graph, means: str) -> list[onnx.ValueInfoProto]:
    distribution = policy.distribution
    assert isinstance(distribution, Gaussian)
    bounds, action_shape = distribution.bounds, distribution.shape
    shape = graph.constant("action_shape", np.array([-1, *action_shape], np.int64))
    for name in ("low", "high", "scale", "centre"):
        graph.constant(name, getattr(bounds, name))
    graph.add("Mul", [means, "scale"], "scaled")
    graph.add("Add", ["scaled", "centre"], "placed")
    graph.add("Reshape", ["placed", shape], "mean")
    graph.add("Max", ["placed", "low"], "above_low")
    graph.add("Min", ["above_low", "high"], "within_bounds")
    graph.add("Reshape", ["within_bounds", shape], "action")
    sigma = (bounds.scale * distribution.std).reshape(action_shape)
    graph.add("Identity", [graph.constant("sigma", sigma)], "std")
    return [
        helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", *action_shape]),
        helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", *action_shape]),
        helper.make_tensor_value_info("std", TensorProto.FLOAT, [*action_shape]),
    ]


_HEADS: dict[type[Distribution], Callable[[Policy, _Graph, str], list[onnx.ValueInfoProto]]] = {
    Categorical: _categorical,
    Gaussian: _gaussian,
}
"""Each adds a distribution's outputs to the graph, given the name of its parameters."""


def _network(policy: Policy, graph: _Graph) -> str:
    """As Policy.forward: the name of the distribution's parameters, [batch, A]."""
    spec, weights = policy.spec, policy.weights
    x = graph.add("Flatten", ["observation"], "flat", axis=1)
    if spec.normalize_observations:
        for name in ("observation_mean", "observation_std"):
            graph.constant(name, weights[name])
        graph.add("Sub", [x, "observation_mean"], "centred")
        graph.add("Div", ["centred", "observation_std"], "standardised")
        ends = np.array([-NORMALIZED_LIMIT, NORMALIZED_LIMIT], spec.observation_dtype)
        limits = [graph.constant(f"limit{sign:+d}", end) for sign, end in zip((-1, 1), ends, strict=True)]
        clipped = graph.add("Clip", ["standardised", *limits], "clipped")
        x = graph.add("Cast", [clipped], "normalized", to=TensorProto.FLOAT)
    last = len(spec.hidden_sizes)
    for i in range(last + 1):
        w, b = (graph.constant(f"{kind}{i}", weights[f"{kind}{i}"]) for kind in "wb")
        product = graph.add("MatMul", [x, w], f"product{i}")
        x = graph.add("Add", [product, b], f"layer{i}")
        if i < last:
            x = graph.add(_ACTIVATIONS[spec.activation], [x], f"hidden{i}")
    return x


def export(policy: Policy, path: Path) -> None:
    """Write ``to_onnx`` to a file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(to_onnx(policy).SerializeToString(deterministic=True))
