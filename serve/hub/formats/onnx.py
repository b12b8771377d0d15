"""A policy as an ONNX graph, built from its numpy weights, to act wherever there is an ONNX runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from actors.distribution import Distribution
from actors.distributions import Bernoulli, Categorical, EpsilonGreedy, MultiCategorical
from actors.errors import UserError
from actors.files import replacing
from actors.gaussians import VARIANCE_FLOOR, Gaussian, SquashedGaussian, StateDependentGaussian
from actors.layers import LAYER_NORM_EPS
from actors.masks import FORBIDDEN, MASK
from actors.parts import Parts
from actors.pictures import Picture
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spaces import Box, Discrete, MultiDiscrete, Space
from actors.trunk_graph import Graph, add_trunk
from serve.hub.formats.onnx_cores import CORES, acted

_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}


def to_onnx(policy: Policy) -> onnx.ModelProto:
    """The policy's greedy actions, and the distribution that they come from.

    Input ``observation`` [batch, *obs] of ``spec.observation.dtype``; for each part of one that has some, an
    ``observation.part``. Of a policy that remembers also ``memory`` [batch, M] float32: the output ``next_memory`` of
    the episode's step before, zeros for its first. Of one that acts for a return moreover ``return_to_come`` [batch]
    float32, what is asked for less the rewards so far, and ``noise`` [batch, A] float32, see ``Distribution.noise``, by
    which its actions are samples; zeros: the most likely ones.

    Outputs: ``action`` [batch, *act] as the environment takes it; of continuous actions ``mean`` [batch, *act] and,
    unless they are squashed, ``std`` [*act], or [batch, *act] where it depends on the observation, in the actions'
    units; of others ``probabilities`` [batch, A], or ``q_values`` [batch, A] where these decide; float32.

    Returns:
        The model, checked.

    Raises:
        UserError: nobody has written down how its actions are distributed, or how it remembers.
    """
    spec, graph = policy.spec, Graph()
    parameters = _network(policy, graph)
    head = _HEADS.get(type(policy.distribution))
    if head is None:
        raise UserError(f"{spec.distribution} actions have no form in ONNX yet")
    outputs = head(policy, graph, parameters)
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
        for name, numbers in (("return_to_come", []), ("noise", [len(policy.distribution.labels)])):
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *numbers]))
    model = graph.model("policy", inputs, outputs)
    helper.set_model_props(model, {"env_id": spec.env_id, "version": str(spec.version)})
    onnx.checker.check_model(model, full_check=True)
    return model


def _categorical(policy: Policy, graph: Graph, logits: str) -> list[onnx.ValueInfoProto]:
    graph.add("Softmax", [logits], "probabilities", axis=1)
    return _chosen(policy, graph, logits, "probabilities")


def _epsilon_greedy(policy: Policy, graph: Graph, q_values: str) -> list[onnx.ValueInfoProto]:
    graph.add("Identity", [q_values], "q_values")
    return _chosen(policy, graph, q_values, "q_values")


def _noisy(policy: Policy, graph: Graph, x: str, spread: str | None = None) -> str:
    """Where a return is acted for, x and the noise, which is multiplied by the spread if there is one; else x."""
    if policy.spec.target_return is None:
        return x
    return graph.add("Add", [x, graph.add("Mul", ["noise", spread], "spread_noise") if spread else "noise"], "noisy")


def _chosen(policy: Policy, graph: Graph, parameters: str, shown: str) -> list[onnx.ValueInfoProto]:
    """The action of the largest parameter, beside what is shown of all."""
    assert isinstance(policy.spec.action, Discrete)
    graph.add("ArgMax", [_noisy(policy, graph, parameters)], "choice", axis=1, keepdims=0)
    graph.add("Add", ["choice", graph.constant("first", np.array(policy.spec.action.start, np.int64))], "action")
    return [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info(shown, TensorProto.FLOAT, ["batch", policy.spec.layer_sizes[-1]]),
    ]


def _gaussian(policy: Policy, graph: Graph, means: str) -> list[onnx.ValueInfoProto]:
    distribution = policy.distribution
    assert isinstance(distribution, Gaussian)
    sigma = distribution.bounds.scale * distribution.std
    spread = graph.constant("spread", sigma) if policy.spec.target_return is not None else None
    outputs = _placed(policy, graph, means, spread)
    graph.add("Identity", [graph.constant("sigma", sigma.reshape(distribution.shape))], "std")
    return [*outputs, helper.make_tensor_value_info("std", TensorProto.FLOAT, [*distribution.shape])]


def _state_dependent_gaussian(policy: Policy, graph: Graph, means: str) -> list[onnx.ValueInfoProto]:
    distribution = policy.distribution
    assert isinstance(distribution, StateDependentGaussian)
    is_remembered = policy.spec.network.memory != "none"
    hidden = "remembered" if is_remembered else f"hidden{len(policy.spec.network.hidden_sizes) - 1}"
    graph.add("Mul", [hidden, hidden], "hidden_squared")
    graph.add("MatMul", ["hidden_squared", graph.constant("noise_variances", distribution.variances)], "variances")
    graph.add("Add", ["variances", graph.constant("floor", np.float32(VARIANCE_FLOOR))], "variance")
    graph.add("Sqrt", ["variance"], "deviation")
    graph.add("Mul", ["deviation", "scale"], "deviation_placed")
    outputs = _placed(policy, graph, means, "deviation_placed")
    graph.add("Reshape", ["deviation_placed", "action_shape"], "std")
    return [*outputs, helper.make_tensor_value_info("std", TensorProto.FLOAT, ["batch", *distribution.shape])]


def _squashed_gaussian(policy: Policy, graph: Graph, parameters: str) -> list[onnx.ValueInfoProto]:
    if policy.spec.target_return is not None:
        raise UserError("squashed actions that are sampled have no form in ONNX yet")
    components = policy.spec.action.inputs
    ends = [graph.constant(name, np.array([place], np.int64)) for name, place in (("from", 0), ("to", components))]
    axis = graph.constant("axis_of_components", np.array([1], np.int64))
    graph.add("Slice", [parameters, *ends, axis], "unsquashed")
    return _placed(policy, graph, graph.add("Tanh", ["unsquashed"], "squashed"))


def _placed(policy: Policy, graph: Graph, means: str, spread: str | None = None) -> list[onnx.ValueInfoProto]:
    """The action and the mean, in the action's units; so is the spread of what is sampled, [batch, A] or [A]."""
    distribution = policy.distribution
    assert isinstance(distribution, Gaussian | SquashedGaussian)
    bounds, action_shape = distribution.bounds, distribution.shape
    shape = graph.constant("action_shape", np.array([-1, *action_shape], np.int64))
    for name in ("low", "high", "scale", "centre"):
        graph.constant(name, getattr(bounds, name))
    graph.add("Mul", [means, "scale"], "scaled")
    graph.add("Add", ["scaled", "centre"], "placed")
    graph.add("Reshape", ["placed", shape], "mean")
    graph.add("Max", [_noisy(policy, graph, "placed", spread), "low"], "above_low")
    graph.add("Min", ["above_low", "high"], "within_bounds")
    graph.add("Reshape", ["within_bounds", shape], "action")
    return [
        helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", *action_shape]),
        helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", *action_shape]),
    ]


def _multi_categorical(policy: Policy, graph: Graph, logits: str) -> list[onnx.ValueInfoProto]:
    space = policy.spec.action
    assert isinstance(space, MultiDiscrete)
    ends = np.cumsum([0, *space.nvec])
    axis = graph.constant("axis_of_choices", np.array([1], np.int64))
    actions, probabilities, noisy = [], [], _noisy(policy, graph, logits)
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        cut = [
            graph.constant(f"{name}{i}", np.array([place], np.int64)) for name, place in (("from", start), ("to", end))
        ]
        part = graph.add("Slice", [logits, *cut, axis], f"logits_of{i}")
        sampled = part if noisy == logits else graph.add("Slice", [noisy, *cut, axis], f"noisy_of{i}")
        actions.append(graph.add("ArgMax", [sampled], f"choice{i}", axis=1, keepdims=1))
        probabilities.append(graph.add("Softmax", [part], f"probabilities_of{i}", axis=1))
    graph.add("Concat", actions, "choices", axis=1)
    graph.add("Add", ["choices", graph.constant("first", space.first)], "numbered")
    graph.add("Reshape", ["numbered", graph.constant("action_shape", np.array([-1, *space.shape], np.int64))], "action")
    graph.add("Concat", probabilities, "probabilities", axis=1)
    return [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch", *space.shape]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", policy.spec.layer_sizes[-1]]),
    ]


def _bernoulli(policy: Policy, graph: Graph, log_odds: str) -> list[onnx.ValueInfoProto]:
    shape = policy.spec.action.shape
    graph.add("Greater", [_noisy(policy, graph, log_odds), graph.constant("even", np.float32(0))], "is_one")
    graph.add("Cast", ["is_one"], "ones", to=TensorProto.INT8)
    graph.add("Reshape", ["ones", graph.constant("action_shape", np.array([-1, *shape], np.int64))], "action")
    graph.add("Sigmoid", [log_odds], "probabilities")
    return [
        helper.make_tensor_value_info("action", TensorProto.INT8, ["batch", *shape]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", policy.spec.layer_sizes[-1]]),
    ]


_HEADS: dict[type[Distribution], Callable[[Policy, Graph, str], list[onnx.ValueInfoProto]]] = {
    Categorical: _categorical,
    EpsilonGreedy: _epsilon_greedy,
    MultiCategorical: _multi_categorical,
    Bernoulli: _bernoulli,
    Gaussian: _gaussian,
    StateDependentGaussian: _state_dependent_gaussian,
    SquashedGaussian: _squashed_gaussian,
}
"""Each adds a distribution's outputs to the graph, given the name of its parameters."""


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
    return _masked(x, graph) if spec.is_masked else x


def _masked(parameters: str, graph: Graph) -> str:
    """As actors.masks.masked."""
    flat = graph.add("Flatten", [f"observation.{MASK}"], "mask", axis=1)
    numbers = graph.add("Cast", [flat], "mask_numbers", to=TensorProto.FLOAT)
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
