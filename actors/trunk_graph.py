"""Trunks as ONNX graphs, by which policies that see pictures act: ONNX Runtime's convolutions are several times faster
than what numpy can do, and need no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actors.pictures import Picture, pictures_in
from actors.spaces import Space
from actors.trees import Array
from actors.trunks import RESIDUAL_CONVOLUTIONS, read_trunk, weight_name

OPSET, IR_VERSION = 17, 8
"""Versions of ONNX's operators and files, of 2022: any runtime in use knows them, and graphs need nothing newer."""


class Graph:
    """Nodes in the order in which they are computed; each has one output, named after what it holds."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._suffix = ""

    def of_part(self, part: str) -> Graph:
        """The same graph, in which each name that is used stands for itself with a dot and the part's after it."""
        graph = Graph()
        graph.nodes, graph.constants, graph._suffix = self.nodes, self.constants, f"{self._suffix}.{part}"
        return graph

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node; answers its output."""
        names = [name + self._suffix for name in inputs]
        self.nodes.append(helper.make_node(operation, names, [output + self._suffix], **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add a constant; answers its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value), name + self._suffix))
        return name

    def columns(self, x: str, which: slice, output: str) -> str:
        """Add the cut of these columns out of [batch, n]; answers its output."""
        ends = (("first", which.start), ("end", which.stop), ("axis", 1))
        cut = [self.constant(f"{output}_{name}", np.array([end], np.int64)) for name, end in ends]
        return self.add("Slice", [x, *cut], output)

    def model(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The whole, unchecked."""
        model: onnx.ModelProto = helper.make_model(
            helper.make_graph(self.nodes, name, inputs, outputs, self.constants),
            producer_name="touchdown",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        return model


def add_trunk(graph: Graph, planes: str, part: str, trunk: str, weights: dict[str, Array]) -> str:
    """Add a picture's trunk: [batch, C, H, W] uint8 -> [batch, features] float32.

    Args:
        graph: to add to.
        planes: the name of what it sees.
        part: the picture's name among the parts of an observation.
        trunk: its text.
        weights: of the policy.
    """

    def convolved(x: str, name: str, **attributes: Any) -> str:
        w, b = weights[f"{name}_w"], weights[f"{name}_b"]
        if name == weight_name(part, 0):
            w = w / np.float32(255)  # in place of dividing every pixel
        return graph.add(
            "Conv", [x, graph.constant(f"{name}_w", w), graph.constant(f"{name}_b", b)], name, **attributes
        )

    padded = {"pads": [1, 1, 1, 1]}
    x = graph.add("Cast", [planes], f"({part}):pixels", to=TensorProto.FLOAT)
    layers = read_trunk(trunk)
    for i, layer in enumerate(layers):
        name = weight_name(part, i)
        if not layer.is_residual:
            x = graph.add("Relu", [convolved(x, name, strides=[layer.stride] * 2)], f"{name}:relu")
            continue
        x = convolved(x, name, **padded)
        x = graph.add("MaxPool", [x], f"{name}:pool", kernel_shape=[3, 3], strides=[2, 2], **padded)
        for j in range(0, RESIDUAL_CONVOLUTIONS, 2):
            y = x
            for k in (j, j + 1):
                y = convolved(graph.add("Relu", [y], f"{name}_{k}:relu"), f"{name}_{k}", **padded)
            x = graph.add("Add", [x, y], f"{name}_{j}:sum")
    if layers[-1].is_residual:
        x = graph.add("Relu", [x], f"({part}):last")
    return graph.add("Flatten", [x], f"({part}):features", axis=1)


class Encoder:
    """What the layers after a policy's trunks see of observations: features of its pictures, and its other numbers.

    One that acts has a session of ONNX Runtime for each picture, on one thread, made when it is first called.

    Args:
        seen: what the policy sees.
        trunk: its text.
        weights: of the policy.
    """

    def __init__(self, seen: Space, trunk: str, weights: dict[str, Array]) -> None:
        self._seen, self._trunk, self._weights = seen, trunk, weights
        self._pictures = dict(pictures_in(seen))
        self._sessions: dict[str, Any] = {}

    def __call__(self, observations: Any) -> Array:
        """[B, features] float32, of a column of observations."""
        return np.concatenate(self._encoded(self._seen, observations, ""), axis=1)

    def _encoded(self, space: Space, values: Any, part: str) -> list[Array]:
        if isinstance(space, Picture):
            if part not in self._sessions:
                self._sessions[part] = self._session(part, space)
            features: list[Array] = self._sessions[part].run(None, {"planes": space.encode(values)})
            return features
        if not any(name == part or name.startswith(f"{part}." if part else "") for name in self._pictures):
            return [space.numbers(values).astype(np.float32, copy=False)]
        inner: dict[str, Space] = space.spaces  # type: ignore[attr-defined]
        return [
            column
            for name, one in inner.items()
            for column in self._encoded(one, values[name], f"{part}.{name}" if part else name)
        ]

    def _session(self, part: str, picture: Picture) -> Any:
        import onnxruntime  # here: policies that see no pictures act without it

        graph = Graph()
        features = add_trunk(graph, "planes", part, self._trunk, self._weights)
        planes = helper.make_tensor_value_info("planes", TensorProto.UINT8, ["batch", *picture.planes])
        model = graph.model("trunk", [planes], [helper.make_tensor_value_info(features, TensorProto.FLOAT, None)])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
