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
from actors.gaussians import LOG_STD_RANGE, VARIANCE_FLOOR, Gaussian, SquashedGaussian, StateDependentGaussian
from actors.joint import Joint
from actors.policy import Policy
from actors.spaces import Discrete, MultiDiscrete, Space
from actors.spec import PolicySpec
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
    head = Head(spec.action, policy.distribution, graph, takes_noise(spec), hidden)
    return _HEADS[type(policy.distribution)](head, parameters)


def takes_noise(spec: PolicySpec) -> bool:
    """Whether a policy's graph has the input ``noise``: it acts for a return, or is made to be sampled."""
    return spec.target_return is not None or spec.is_sampled


def _categorical(head: Head, logits: str) -> list[onnx.ValueInfoProto]:
    head.graph.add("Softmax", [logits], "probabilities", axis=1)
    return _chosen(head, logits, "probabilities")


def _epsilon_greedy(head: Head, q_values: str) -> list[onnx.ValueInfoProto]:
    head.graph.add("Identity", [q_values], "q_values")
    return _chosen(head, q_values, "q_values")


def _noisy(head: Head, x: str, spread: str | None = None) -> str:
    """x and the noise, where there is some, which is multiplied by the spread if that is given."""
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
    distribution, graph = head.distribution, head.graph
    assert isinstance(distribution, Gaussian)
    sigma = distribution.bounds.scale * distribution.std
    placed = _placed(head, means, "placed")
    noisy = _noisy(head, placed, graph.constant("spread", sigma)) if head.is_sampled else placed
    graph.add("Identity", [graph.constant("sigma", sigma.reshape(distribution.shape))], "std")
    std = helper.make_tensor_value_info("std", TensorProto.FLOAT, [*distribution.shape])
    return [*_within_bounds(head, placed, noisy), std]


def _state_dependent_gaussian(head: Head, means: str) -> list[onnx.ValueInfoProto]:
    distribution, graph = head.distribution, head.graph
    assert isinstance(distribution, StateDependentGaussian)
    graph.add("Mul", [head.hidden, head.hidden], "hidden_squared")
    graph.add("MatMul", ["hidden_squared", graph.constant("noise_variances", distribution.variances)], "variances")
    graph.add("Add", ["variances", graph.constant("floor", np.float32(VARIANCE_FLOOR))], "variance")
    graph.add("Sqrt", ["variance"], "deviation")
    placed = _placed(head, means, "placed")
    graph.add("Mul", ["deviation", "scale"], "deviation_placed")
    outputs = _within_bounds(head, placed, _noisy(head, placed, "deviation_placed"))
    graph.add("Reshape", ["deviation_placed", "action_shape"], "std")
    return [*outputs, helper.make_tensor_value_info("std", TensorProto.FLOAT, ["batch", *distribution.shape])]


def _squashed_gaussian(head: Head, parameters: str) -> list[onnx.ValueInfoProto]:
    graph, components = head.graph, head.action.inputs
    unsquashed = graph.columns(parameters, slice(0, components), "unsquashed")
    placed = _placed(head, graph.add("Tanh", [unsquashed], "squashed"), "placed")
    if not head.is_sampled:
        return _within_bounds(head, placed, placed)
    log_std = graph.columns(parameters, slice(components, 2 * components), "log_std")
    ends = [graph.constant(name, np.float32(end)) for name, end in zip(("least", "most"), LOG_STD_RANGE, strict=True)]
    std = graph.add("Exp", [graph.add("Clip", [log_std, *ends], "log_std_clipped")], "std")
    squashed = graph.add("Tanh", [_noisy(head, unsquashed, std)], "squashed_sample")
    graph.add("Mul", [squashed, "scale"], "sample_scaled")
    return _within_bounds(head, placed, graph.add("Add", ["sample_scaled", "centre"], "sample_placed"))


def _placed(head: Head, means: str, output: str) -> str:
    """What the network has for the actions' means, in the actions' units; ``scale`` and ``centre`` are there then."""
    bounds = head.distribution.bounds  # type: ignore[attr-defined]
    scale, centre = (head.graph.constant(name, getattr(bounds, name)) for name in ("scale", "centre"))
    return head.graph.add("Add", [head.graph.add("Mul", [means, scale], "scaled"), centre], output)


def _within_bounds(head: Head, means: str, actions: str) -> list[onnx.ValueInfoProto]:
    """The actions, clipped to their bounds, and the means; both in the actions' units."""
    distribution, graph = head.distribution, head.graph
    assert isinstance(distribution, Gaussian | SquashedGaussian)
    shape = graph.constant("action_shape", np.array([-1, *distribution.shape], np.int64))
    low, high = (graph.constant(name, getattr(distribution.bounds, name)) for name in ("low", "high"))
    graph.add("Reshape", [means, shape], "mean")
    graph.add("Min", [graph.add("Max", [actions, low], "above_low"), high], "within_bounds")
    graph.add("Reshape", ["within_bounds", shape], "action")
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *distribution.shape])
        for name in ("action", "mean")
    ]


def _multi_categorical(head: Head, logits: str) -> list[onnx.ValueInfoProto]:
    space = head.action
    assert isinstance(space, MultiDiscrete)
    ends = np.cumsum([0, *space.nvec])
    actions, probabilities, noisy = [], [], _noisy(head, logits)
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        part = head.graph.columns(logits, slice(start, end), f"logits_of{i}")
        sampled = part if noisy == logits else head.graph.columns(noisy, slice(start, end), f"noisy_of{i}")
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
    for place, part in head.distribution.parts:
        for name in ("parameters", "noise") if head.is_sampled else ("parameters",):
            whole = parameters if name == "parameters" else name
            head.graph.columns(whole, place.parameters, f"{name}.{place.name}")
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
