"""Action distributions in ONNX: the most likely action and what it comes from, of a network's outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from actors.discrete import Bernoulli, Categorical, EpsilonGreedy, MultiCategorical
from actors.distribution import Distribution
from actors.errors import UserError
from actors.gaussians import VARIANCE_FLOOR, Gaussian, SquashedGaussian, StateDependentGaussian
from actors.joint import Joint
from actors.policy import Policy
from actors.spaces import Discrete, MultiDiscrete, Space
from actors.trunk_graph import Graph


class Head(NamedTuple):
    """A distribution, and the graph that its outputs are added to."""

    action: Space
    distribution: Distribution
    graph: Graph
    is_sampled: bool
    """Whether the graph has an input ``noise``, by which actions are samples."""
    hidden: str
    """What the output layer reads."""


def add_head(policy: Policy, graph: Graph, parameters: str) -> list[onnx.ValueInfoProto]:
    """Add the outputs of a policy's distribution, given the name of its parameters; answers what they are.

    Raises:
        UserError: nobody has written down how its actions are distributed.
    """
    spec = policy.spec
    if type(policy.distribution) not in _HEADS:
        raise UserError(f"{spec.distribution} actions have no form in ONNX yet")
    hidden = "remembered" if spec.network.memory != "none" else f"hidden{len(spec.network.hidden_sizes) - 1}"
    head = Head(spec.action, policy.distribution, graph, spec.target_return is not None, hidden)
    return _HEADS[type(policy.distribution)](head, parameters)


def _categorical(head: Head, logits: str) -> list[onnx.ValueInfoProto]:
    head.graph.add("Softmax", [logits], "probabilities", axis=1)
    return _chosen(head, logits, "probabilities")


def _epsilon_greedy(head: Head, q_values: str) -> list[onnx.ValueInfoProto]:
    head.graph.add("Identity", [q_values], "q_values")
    return _chosen(head, q_values, "q_values")


def _noisy(head: Head, x: str, spread: str | None = None) -> str:
    """Where a return is acted for, x and the noise, which is multiplied by the spread if there is one; else x."""
    if not head.is_sampled:
        return x
    return head.graph.add(
        "Add", [x, head.graph.add("Mul", ["noise", spread], "spread_noise") if spread else "noise"], "noisy"
    )


def _chosen(head: Head, parameters: str, shown: str) -> list[onnx.ValueInfoProto]:
    """The action of the largest parameter, beside what is shown of all."""
    assert isinstance(head.action, Discrete)
    head.graph.add("ArgMax", [_noisy(head, parameters)], "choice", axis=1, keepdims=0)
    head.graph.add("Add", ["choice", head.graph.constant("first", np.array(head.action.start, np.int64))], "action")
    return [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info(shown, TensorProto.FLOAT, ["batch", head.action.inputs]),
    ]


def _gaussian(head: Head, means: str) -> list[onnx.ValueInfoProto]:
    distribution = head.distribution
    assert isinstance(distribution, Gaussian)
    sigma = distribution.bounds.scale * distribution.std
    spread = head.graph.constant("spread", sigma) if head.is_sampled else None
    outputs = _placed(head, means, spread)
    head.graph.add("Identity", [head.graph.constant("sigma", sigma.reshape(distribution.shape))], "std")
    return [*outputs, helper.make_tensor_value_info("std", TensorProto.FLOAT, [*distribution.shape])]


def _state_dependent_gaussian(head: Head, means: str) -> list[onnx.ValueInfoProto]:
    distribution = head.distribution
    assert isinstance(distribution, StateDependentGaussian)
    head.graph.add("Mul", [head.hidden, head.hidden], "hidden_squared")
    head.graph.add(
        "MatMul", ["hidden_squared", head.graph.constant("noise_variances", distribution.variances)], "variances"
    )
    head.graph.add("Add", ["variances", head.graph.constant("floor", np.float32(VARIANCE_FLOOR))], "variance")
    head.graph.add("Sqrt", ["variance"], "deviation")
    head.graph.add("Mul", ["deviation", "scale"], "deviation_placed")
    outputs = _placed(head, means, "deviation_placed")
    head.graph.add("Reshape", ["deviation_placed", "action_shape"], "std")
    return [*outputs, helper.make_tensor_value_info("std", TensorProto.FLOAT, ["batch", *distribution.shape])]


def _squashed_gaussian(head: Head, parameters: str) -> list[onnx.ValueInfoProto]:
    if head.is_sampled:
        raise UserError("squashed actions that are sampled have no form in ONNX yet")
    components = head.action.inputs
    ends = [head.graph.constant(name, np.array([place], np.int64)) for name, place in (("from", 0), ("to", components))]
    axis = head.graph.constant("axis_of_components", np.array([1], np.int64))
    head.graph.add("Slice", [parameters, *ends, axis], "unsquashed")
    return _placed(head, head.graph.add("Tanh", ["unsquashed"], "squashed"))


def _placed(head: Head, means: str, spread: str | None = None) -> list[onnx.ValueInfoProto]:
    """The action and the mean, in the action's units; so is the spread of what is sampled, [batch, A] or [A]."""
    distribution = head.distribution
    assert isinstance(distribution, Gaussian | SquashedGaussian)
    bounds, action_shape = distribution.bounds, distribution.shape
    shape = head.graph.constant("action_shape", np.array([-1, *action_shape], np.int64))
    for name in ("low", "high", "scale", "centre"):
        head.graph.constant(name, getattr(bounds, name))
    head.graph.add("Mul", [means, "scale"], "scaled")
    head.graph.add("Add", ["scaled", "centre"], "placed")
    head.graph.add("Reshape", ["placed", shape], "mean")
    head.graph.add("Max", [_noisy(head, "placed", spread), "low"], "above_low")
    head.graph.add("Min", ["above_low", "high"], "within_bounds")
    head.graph.add("Reshape", ["within_bounds", shape], "action")
    return [
        helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", *action_shape]),
        helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", *action_shape]),
    ]


def _multi_categorical(head: Head, logits: str) -> list[onnx.ValueInfoProto]:
    space = head.action
    assert isinstance(space, MultiDiscrete)
    ends = np.cumsum([0, *space.nvec])
    axis = head.graph.constant("axis_of_choices", np.array([1], np.int64))
    actions, probabilities, noisy = [], [], _noisy(head, logits)
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        cut = [
            head.graph.constant(f"{name}{i}", np.array([place], np.int64))
            for name, place in (("from", start), ("to", end))
        ]
        part = head.graph.add("Slice", [logits, *cut, axis], f"logits_of{i}")
        sampled = part if noisy == logits else head.graph.add("Slice", [noisy, *cut, axis], f"noisy_of{i}")
        actions.append(head.graph.add("ArgMax", [sampled], f"choice{i}", axis=1, keepdims=1))
        probabilities.append(head.graph.add("Softmax", [part], f"probabilities_of{i}", axis=1))
    head.graph.add("Concat", actions, "choices", axis=1)
    head.graph.add("Add", ["choices", head.graph.constant("first", space.first)], "numbered")
    head.graph.add(
        "Reshape", ["numbered", head.graph.constant("action_shape", np.array([-1, *space.shape], np.int64))], "action"
    )
    head.graph.add("Concat", probabilities, "probabilities", axis=1)
    return [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch", *space.shape]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.action.inputs]),
    ]


def _bernoulli(head: Head, log_odds: str) -> list[onnx.ValueInfoProto]:
    shape = head.action.shape
    head.graph.add("Greater", [_noisy(head, log_odds), head.graph.constant("even", np.float32(0))], "is_one")
    head.graph.add("Cast", ["is_one"], "ones", to=TensorProto.INT8)
    head.graph.add("Reshape", ["ones", head.graph.constant("action_shape", np.array([-1, *shape], np.int64))], "action")
    head.graph.add("Sigmoid", [log_odds], "probabilities")
    return [
        helper.make_tensor_value_info("action", TensorProto.INT8, ["batch", *shape]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.action.inputs]),
    ]


def _joint(head: Head, parameters: str) -> list[onnx.ValueInfoProto]:
    """Each part's outputs, of its own parameters."""
    assert isinstance(head.distribution, Joint)
    outputs = []
    axis = head.graph.constant("axis_of_parts", np.array([1], np.int64))
    for place, part in head.distribution.parts:
        ends = [
            head.graph.constant(f"{name}.{place.name}", np.array([end], np.int64))
            for name, end in (("begins", place.parameters.start), ("stops", place.parameters.stop))
        ]
        head.graph.add("Slice", [parameters, *ends, axis], f"parameters.{place.name}")
        inner = head._replace(action=place.space, distribution=part, graph=head.graph.of_part(place.name))
        for output in _HEADS[type(part)](inner, "parameters"):
            output.name = f"{output.name}.{place.name}"
            outputs.append(output)
    return outputs


_HEADS: dict[type[Distribution], Callable[[Head, str], list[onnx.ValueInfoProto]]] = {
    Categorical: _categorical,
    EpsilonGreedy: _epsilon_greedy,
    MultiCategorical: _multi_categorical,
    Bernoulli: _bernoulli,
    Gaussian: _gaussian,
    StateDependentGaussian: _state_dependent_gaussian,
    SquashedGaussian: _squashed_gaussian,
    Joint: _joint,
}
"""Each adds a distribution's outputs to the graph, given the name of its parameters; answers what they are."""
