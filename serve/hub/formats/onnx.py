"""A policy as an ONNX graph, built from its numpy weights, to act wherever there is an ONNX runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from actors.errors import UserError
from actors.files import replacing
from actors.layers import LAYER_NORM_EPS
from actors.masks import FORBIDDEN, MASK
from actors.parts import Parts
from actors.pictures import Picture
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spaces import Box, Discrete, MultiDiscrete, Space
from actors.spec import PolicySpec
from actors.trunk_graph import Graph, add_trunk
from serve.hub.formats.onnx_cores import CORES, acted
from serve.hub.formats.onnx_heads import add_head, takes_noise

_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}


def to_onnx(policy: Policy) -> onnx.ModelProto:
    """The policy's greedy actions, and the distribution that they come from.

    Input ``observation`` [batch, *obs] of ``spec.observation.dtype``; for each part of one that has some, an
    ``observation.part``. Of a policy that remembers also ``memory`` [batch, M] float32: the output ``next_memory`` of
    the episode's step before, zeros for its first. Of one that acts for a return ``return_to_come`` [batch] float32,
    what is asked for less the rewards so far. Of that and of one that is made to be sampled ``noise`` [batch, A]
    float32, see ``Distribution.noise``, by which its actions are samples; zeros: the most likely ones.

    Outputs: ``action`` [batch, *act] as the environment takes it; of continuous actions ``mean`` [batch, *act] and,
    unless they are squashed, ``std`` [*act], or [batch, *act] where it depends on the observation, in the actions'
    units; of others ``probabilities`` [batch, A], or ``q_values`` [batch, A] where these decide; float32. Of actions of
    several parts each of these for each part: ``action.part`` and so on.

    Returns:
        The model, checked.

    Raises:
        UserError: nobody has written down how its actions are distributed, or how it remembers.
    """
    spec, graph = policy.spec, Graph()
    parameters = _network(policy, graph)
    outputs = add_head(policy, graph, parameters)
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(space.dtype)), ["batch", *space.shape]
        )
        for name, _, space in inputs_of(spec.observation)
    ]
    if spec.target_return is not None:
        acted(policy, graph, _encoded("action", spec.action, graph, "float32"))
    for rows in policy.start(1).values():
        for values, name in ((inputs, "memory"), (outputs, "next_memory")):
            values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", rows.shape[1]]))
    if spec.target_return is not None:
        inputs.append(helper.make_tensor_value_info("return_to_come", TensorProto.FLOAT, ["batch"]))
    if takes_noise(spec):
        components = len(policy.distribution.labels)
        inputs.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch", components]))
    model = graph.model("policy", inputs, outputs)
    helper.set_model_props(model, {"env_id": spec.env_id, "version": str(spec.version)})
    onnx.checker.check_model(model, full_check=True)
    return model


def _network(policy: Policy, graph: Graph) -> str:
    """As Policy.forward: the name of the distribution's parameters, [batch, A]."""
    spec, weights = policy.spec, policy.weights
    parts = [
        _pictured(name, space, graph, policy)
        if isinstance(space, Picture)
        else _encoded(name, space, graph, spec.statistics_dtype)
        for name, _, space in inputs_of(spec.seen)
    ]
    x = parts[0] if len(parts) == 1 else graph.add("Concat", parts, "inputs", axis=1)
    if spec.network.normalize_observations:
        for name in ("observation_mean", "observation_std"):
            graph.constant(name, weights[name])
        graph.add("Sub", [x, "observation_mean"], "centred")
        graph.add("Div", ["centred", "observation_std"], "standardised")
        ends = np.array([-NORMALIZED_LIMIT, NORMALIZED_LIMIT], spec.statistics_dtype)
        limits = [graph.constant(f"limit{sign:+d}", end) for sign, end in zip((-1, 1), ends, strict=True)]
        clipped = graph.add("Clip", ["standardised", *limits], "clipped")
        x = graph.add("Cast", [clipped], "normalized", to=TensorProto.FLOAT)
    last = len(spec.network.hidden_sizes)
    for i in range(last + 1):
        if i == last and spec.network.memory != "none":
            if spec.network.memory not in CORES:
                raise UserError(f"memory {spec.network.memory} has no form in ONNX")
            x = CORES[spec.network.memory](policy, graph, x)
        w, b = (graph.constant(f"{kind}{i}", weights[f"{kind}{i}"]) for kind in "wb")
        product = graph.add("MatMul", [x, w], f"product{i}")
        x = graph.add("Add", [product, b], f"layer{i}")
        if i < last and spec.network.layer_norm:
            scale, shift = (graph.constant(f"{kind}{i}", weights[f"{kind}{i}"]) for kind in ("scale", "shift"))
            x = graph.add("LayerNormalization", [x, scale, shift], f"normalized{i}", axis=-1, epsilon=LAYER_NORM_EPS)
        if i < last:
            x = graph.add(_ACTIVATIONS[spec.network.activation], [x], f"hidden{i}")
    return _masked(x, spec, graph) if spec.is_masked else x


def _masked(parameters: str, spec: PolicySpec, graph: Graph) -> str:
    """As actors.masks.masked."""
    flat = graph.add("Flatten", [f"observation.{MASK}"], "mask", axis=1)
    numbers = graph.add("Cast", [flat], "mask_numbers", to=TensorProto.FLOAT)
    if spec.chooses is not None:
        places = graph.constant("choices", np.eye(len(spec.chooses), dtype=np.float32)[spec.chooses])
        placed = graph.add("MatMul", [numbers, places], "mask_of_choices")
        numbers = graph.add("Add", [placed, graph.constant("continuous", np.float32(~spec.chooses))], "mask_of_all")
    allows = graph.add("Greater", [numbers, graph.constant("zero", np.float32(0))], "allows")
    return graph.add("Where", [allows, parameters, graph.constant("forbidden", np.float32(FORBIDDEN))], "masked")


class Input(NamedTuple):
    """An input of the graph: an array that an observation is made of."""

    name: str
    """``observation``, or ``observation.part`` and so on."""
    path: tuple[str | int, ...]
    """The keys that lead to it in what an environment gives."""
    space: Space


def inputs_of(space: Space, name: str = "observation", path: tuple[str | int, ...] = ()) -> Iterator[Input]:
    """The inputs of a policy of such observations."""
    if isinstance(space, Parts):
        for part, inner in space.spaces.items():
            yield from inputs_of(inner, f"{name}.{part}", (*path, int(part) if space.is_tuple else part))
    else:
        yield Input(name, path, space)


def _pictured(name: str, picture: Picture, graph: Graph, policy: Policy) -> str:
    """What the layers see of a picture: its trunk's features, or its numbers from 0 to 1."""
    x, trunk = name, policy.spec.network.trunk
    if picture.has_channels_last:
        *outer, height, width, channels = range(len(picture.shape) + 1)
        x = graph.add("Transpose", [x], f"({name}):transposed", perm=[*outer, channels, height, width])
    shape = graph.constant(f"({name}):shape", np.array([-1, *picture.planes], np.int64))
    x = graph.add("Reshape", [x, shape], f"({name}):planes")
    if trunk:
        return add_trunk(graph, x, name.removeprefix("observation").removeprefix("."), trunk, policy.weights)
    x = graph.add(
        "Cast", [graph.add("Flatten", [x], f"({name}):flat", axis=1)], f"({name}):bytes", to=TensorProto.FLOAT
    )
    return graph.add("Div", [x, graph.constant(f"({name}):255", np.float32(255))], f"({name}):numbers")


def _encoded(name: str, space: Space, graph: Graph, dtype: str) -> str:
    """As Space.encode."""
    x = graph.add("Flatten", [name], f"({name}):flat", axis=1)
    if isinstance(space, Discrete):
        space = MultiDiscrete((space.n,), (1,), (space.start,))
    if isinstance(space, MultiDiscrete):
        starts = np.cumsum([0, *space.nvec[:-1]]) - space.first
        x = graph.add("Add", [x, graph.constant(f"({name}):starts", starts.astype(np.int64))], f"({name}):places")
        total = graph.constant(f"({name}):total", np.array(sum(space.nvec), np.int64))
        ends = graph.constant(f"({name}):off_on", np.array([0, 1], np.float32))
        each = graph.add("OneHot", [x, total, ends], f"({name}):each")  # [batch, K, total]
        axis = graph.constant(f"({name}):axis", np.array([1], np.int64))
        x = graph.add("ReduceSum", [each, axis], f"({name}):one_hot", keepdims=0)
    if isinstance(space, Box) and space.dtype == dtype:
        return x
    return graph.add("Cast", [x], f"({name}):numbers", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def export(policy: Policy, path: Path) -> None:
    """Write ``to_onnx`` to a file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(to_onnx(policy).SerializeToString(deterministic=True))
