"""The ONNX graph against the policy that it was made from, in another runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest

from actors.discrete import Categorical
from actors.errors import UserError
from actors.layers import ACTIVATIONS
from actors.memory import restarted
from actors.parts import Parts
from actors.pictures import Picture
from actors.policy import Policy
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from actors.spec import PolicyNetwork, PolicySpec
from actors.trees import Array, Tree, leaves
from serve.hub.formats.onnx import export, to_onnx

CATEGORICAL = PolicySpec("Some-v0", Box((8,)), Discrete(4, start=-1), "categorical")
ARM = Box((2, 2), low=(-1.0, -0.5, -np.inf, -2.0), high=(1.0, 0.5, np.inf, np.inf))
GAUSSIAN = PolicySpec("Some-v0", Box((2, 3)), ARM, "gaussian")
STATE_DEPENDENT = dataclasses.replace(GAUSSIAN, distribution="state_dependent_gaussian")
FAR = dataclasses.replace(ARM, low=(3.0, 0.0, -np.inf, -2.0), high=(5.0, 1000.0, 0.5, np.inf))
SCALED = dataclasses.replace(GAUSSIAN, action=FAR, scale_actions=True)
SQUASHED = dataclasses.replace(
    GAUSSIAN,
    action=Box((2, 2), low=(3.0, 0.0, -1.0, -2.0), high=(5.0, 1000.0, 0.5, 7.0)),
    distribution="squashed_gaussian",
)
VALUES = dataclasses.replace(CATEGORICAL, distribution="epsilon_greedy")
OTHERS = {
    "one cell of a grid": PolicySpec("Some-v0", Discrete(16, start=3), Discrete(4), "categorical"),
    "choices": PolicySpec(
        "Some-v0",
        MultiDiscrete((3, 2), (2,), (1, -4)),
        MultiDiscrete((2, 3, 2, 2), (2, 2), (0, 5, 0, 0)),
        "multi_categorical",
    ),
    "parts": PolicySpec(
        "Some-v0", Parts({"a": Box((2,)), "b": Parts({"0": Discrete(3)}, True)}), Discrete(2), "categorical"
    ),
    "parts of other precision": PolicySpec(
        "Some-v0",
        Parts({"a": Box((2,), "float64"), "b": Box((3,)), "c": MultiBinary((2,))}),
        Discrete(2),
        "categorical",
        network=PolicyNetwork(normalize_observations=True),
    ),
    "masked": PolicySpec(
        "Some-v0", Parts({"a": Box((2,)), "action_mask": MultiBinary((4,))}), Discrete(4, start=3), "categorical"
    ),
    "values": VALUES,
    "masked values": PolicySpec(
        "Some-v0", Parts({"a": Box((2,)), "action_mask": MultiBinary((4,))}), Discrete(4, start=3), "epsilon_greedy"
    ),
    "squashed": SQUASHED,
    "normalised layers": dataclasses.replace(VALUES, network=PolicyNetwork(activation="relu", layer_norm=True)),
    "squashed, normalised layers": dataclasses.replace(SQUASHED, network=PolicyNetwork((8, 3), layer_norm=True)),
    "frames": PolicySpec(
        "Some-v0", Picture((2, 12, 14), 2), Discrete(2), "categorical", network=PolicyNetwork(trunk="4x4/2 6x3")
    ),
    "coloured frames": PolicySpec(
        "Some-v0", Picture((2, 12, 14, 3), 2), Discrete(2), "categorical", network=PolicyNetwork(trunk="r4")
    ),
    "a picture without convolutions": PolicySpec("Some-v0", Picture((5, 4, 3)), Discrete(2), "categorical"),
    "pictures among parts": PolicySpec(
        "Some-v0",
        Parts({"eye": Picture((9, 8, 3)), "speed": Box((2,)), "in": Parts({"map": Picture((2, 8, 8), 2)})}),
        Discrete(4),
        "epsilon_greedy",
        network=PolicyNetwork((8,), trunk="4x4/2"),
    ),
    "switches": PolicySpec("Some-v0", MultiBinary((2, 2)), MultiBinary((3, 1)), "bernoulli"),
}


def made(spec: PolicySpec) -> Policy:
    rng = np.random.default_rng(3)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    if spec.distribution == "epsilon_greedy":
        weights["epsilon"][:] = 0.1
    if "core_return_std" in weights:
        weights["core_return_std"] = np.abs(weights["core_return_std"])
    if spec.network.normalize_observations:
        weights["observation_std"] = np.abs(weights["observation_std"]) + np.float32(0.01)  # small enough to be clipped
        for name in ("observation_mean", "observation_std"):
            weights[name] = weights[name].astype(spec.statistics_dtype)
    return Policy(spec, weights)


@pytest.mark.parametrize("normalize", [None, "float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "spec",
    [
        CATEGORICAL,
        GAUSSIAN,
        SCALED,
        STATE_DEPENDENT,
        dataclasses.replace(SCALED, distribution="state_dependent_gaussian"),
    ],
    ids=["categorical", "gaussian", "scaled", "state-dependent", "state-dependent and scaled"],
)
def test_it_acts_as_the_policy_does(
    spec: PolicySpec, activation: str, normalize: Literal["float32", "float64"] | None, tmp_path: Path
) -> None:
    dtype = normalize or "float32"
    network = PolicyNetwork(activation=activation, normalize_observations=normalize is not None)
    policy = made(dataclasses.replace(spec, network=network, observation=Box(spec.observation.shape, dtype)))
    observations = np.random.default_rng(1).standard_normal((1000, *policy.spec.observation.shape), np.float32)
    if dtype == "float64":  # a small signal on a large offset
        policy.weights["observation_mean"] += 1e9
        observations = observations + np.float64(1e9)
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    outputs = dict(
        zip(
            [output.name for output in session.get_outputs()],
            session.run(None, {"observation": observations}),
            strict=True,
        )
    )
    parameters = policy.forward(observations)
    if isinstance(policy.distribution, Categorical):
        top = np.sort(parameters, axis=1)
        clear = top[:, -1] - top[:, -2] > 1e-4  # the two sum in another order: a tie to the last bit may go either way
        assert clear.sum() > 990
        np.testing.assert_array_equal(outputs["action"][clear], policy.act(observations)[clear])
        np.testing.assert_allclose(outputs["probabilities"], policy.distribution.probabilities(parameters), atol=1e-4)
    else:
        centre, scale = (np.array([4, 500, 0, 0]), np.array([1, 500, 1, 1])) if policy.spec.scale_actions else (0, 1)
        if policy.spec.distribution == "gaussian":
            mean, std = centre + scale * parameters, scale * np.exp(policy.weights["log_std"])
        else:
            means, stds = np.split(parameters, 2, axis=1)
            mean, std = centre + scale * means, scale * stds
        np.testing.assert_allclose(outputs["action"], policy.act(observations), rtol=1e-4, atol=1e-4 * np.max(scale))
        np.testing.assert_allclose(outputs["mean"], mean.reshape(-1, 2, 2), rtol=1e-4, atol=1e-4 * np.max(scale))
        np.testing.assert_allclose(outputs["std"], std.reshape(outputs["std"].shape), rtol=1e-5)
        assert (outputs["action"] != outputs["mean"]).any(), "bounds were reached"


def test_a_policy_without_hidden_layers_and_a_scalar_observation(tmp_path: Path) -> None:
    policy = made(PolicySpec("Some-v0", Box(()), Discrete(2), "categorical", network=PolicyNetwork(())))
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    observations = np.linspace(-3, 3, 10, dtype=np.float32)
    np.testing.assert_array_equal(session.run(["action"], {"observation": observations})[0], policy.act(observations))


def test_a_distribution_that_nobody_has_written_down_for_it_is_refused() -> None:
    class Other(Categorical):
        pass

    policy = made(CATEGORICAL)
    policy.distribution = Other(4)
    with pytest.raises(UserError, match="categorical actions have no form in ONNX yet"):
        to_onnx(policy)


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_every_space_has_its_form(spec: PolicySpec, tmp_path: Path) -> None:
    policy = made(spec)
    observations = spec.observation.sample(np.random.default_rng(1), 500)
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    inputs = dict(leaves(observations, "observation"))
    assert [given.name for given in session.get_inputs()] == [*inputs]
    step = policy.step(observations, policy.start(500))
    ((name, expected),) = step.shown.items()
    assert [given.name for given in session.get_outputs()] == ["action", name]
    action, shown = session.run(["action", name], inputs)
    np.testing.assert_allclose(shown, expected.reshape(shown.shape), rtol=1e-4, atol=1e-4)
    if name == "mean":
        np.testing.assert_allclose(action, step.actions, rtol=1e-4, atol=1e-4)
    else:
        differs = (action != step.actions).reshape(500, -1).any(axis=1)
        assert differs.mean() < 0.01, "but for ties"
    assert action.dtype == step.actions.dtype


ORDERS = Parts(
    {
        "lift": Discrete(3, -1),
        "arms": Parts({"0": FAR, "1": MultiBinary((2,))}, is_tuple=True),
        "gears": MultiDiscrete((2, 3), (2,), (1, 0)),
    }
)


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("is_continuous", [False, True])
def test_actions_of_several_parts_have_outputs_of_their_own(
    memory: Literal["none", "gru"], is_masked: bool, is_continuous: bool, tmp_path: Path
) -> None:
    parts = ORDERS.spaces | ({} if is_continuous else {"arms": MultiBinary((2,))})
    observation = Parts({"a": Box((2,)), "action_mask": MultiBinary((10,))}) if is_masked else Box((2,))
    network = PolicyNetwork((8,), memory=memory, memory_size=5)
    policy = made(PolicySpec("Some-v0", observation, Parts(parts), "joint", is_continuous, network))
    observations = policy.spec.observation.sample(np.random.default_rng(1), 500)
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    if is_masked:
        observations["action_mask"][:, [0, 5, 7]] = 1  # something of each choice
    inputs = dict(leaves(observations, "observation"))
    if memory == "gru":
        inputs["memory"] = np.zeros((500, 5), np.float32)
    step = policy.step(observations, policy.start(500))
    names = [given.name for given in session.get_outputs()]
    found = dict(zip(names, session.run(None, inputs), strict=True))
    actions, shown = dict(leaves(step.actions, "action")), dict(leaves(step.shown))
    assert {*names} == {
        *actions,
        *shown,
        *(["next_memory"] if memory == "gru" else []),
        *(["std.arms.0"] if is_continuous else []),
    }
    for name, column in shown.items():
        np.testing.assert_allclose(found[name].reshape(column.shape), column, rtol=1e-4, atol=1e-4)
    for name, column in actions.items():
        assert found[name].dtype == column.dtype
        assert found[name].shape == column.shape
        assert np.isclose(found[name], column, rtol=1e-4, atol=1e-4).mean() > 0.99, "but for ties"


@pytest.mark.parametrize(
    "spec",
    [
        CATEGORICAL,
        GAUSSIAN,
        SCALED,
        STATE_DEPENDENT,
        SQUASHED,
        VALUES,
        OTHERS["choices"],
        OTHERS["masked"],
        OTHERS["switches"],
        PolicySpec("Some-v0", Box((2,)), ORDERS, "joint", True),
    ],
    ids=lambda spec: spec.distribution,
)
def test_who_is_made_to_be_sampled_acts_by_noise(spec: PolicySpec, tmp_path: Path) -> None:
    policy = made(dataclasses.replace(spec, sampled=True))
    rng = np.random.default_rng(1)
    observations = policy.spec.observation.sample(rng, 500)
    if spec.is_masked:
        observations["action_mask"][:, 0] = 1
    noise = policy.distribution.noise(rng, (500,))
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    names = [name.name for name in session.get_outputs()]
    inputs = dict(leaves(observations, "observation")) | {"noise": noise}
    found = dict(zip(names, session.run(None, inputs), strict=True))
    greedy = dict(leaves(policy.step(observations, policy.start(500)).actions, "action"))
    for name, column in leaves(policy.step(observations, policy.start(500), noise).actions, "action"):
        assert found[name].dtype == column.dtype
        assert np.isclose(found[name], column, rtol=1e-4, atol=1e-4).mean() > 0.99, "but for ties"
        assert not np.isclose(greedy[name], column, rtol=1e-4, atol=1e-4).mean() > 0.99


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize(
    "spec",
    [CATEGORICAL, SCALED, STATE_DEPENDENT, OTHERS["masked"], OTHERS["switches"]],
    ids=lambda spec: str(spec.action),
)
def test_a_hundred_steps_that_are_remembered(spec: PolicySpec, kind: str, tmp_path: Path) -> None:
    """With episodes that begin anew in between: their memory is zeros."""
    network = PolicyNetwork((8,), memory=kind, memory_size=5, normalize_observations=True)  # type: ignore[arg-type]
    policy = made(dataclasses.replace(spec, network=network))
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    memory = policy.start(3)
    remembered = np.zeros((3, policy.start(1)["core"].shape[1]), np.float32)
    shown = [output.name for output in session.get_outputs() if output.name in ("mean", "probabilities")]
    for _ in range(100):
        observations, begins = policy.spec.observation.sample(rng, 3), rng.random(3) < 0.1
        if policy.spec.is_masked:
            observations["action_mask"][:, 0] = 1
        memory, remembered = restarted(memory, begins, policy), np.where(begins[:, None], np.float32(0), remembered)
        step = policy.step(observations, memory)
        inputs = {name.name: part for name, part in zip(session.get_inputs(), columns(observations), strict=False)}
        found, remembered = session.run([*shown, "next_memory"], {**inputs, "memory": remembered})
        expected = step.shown[shown[0]].reshape(found.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max()))
        np.testing.assert_allclose(remembered, step.memory["core"], atol=1e-5)
        memory = step.memory


@pytest.mark.parametrize(
    "spec",
    [CATEGORICAL, GAUSSIAN, STATE_DEPENDENT, *(OTHERS[name] for name in ("choices", "masked", "switches"))],
    ids=lambda spec: f"{spec.distribution} {spec.action.kind}",
)
def test_a_hundred_steps_for_a_return(spec: PolicySpec, tmp_path: Path) -> None:
    """Sampled by the same noise, with episodes that begin anew in between: to them nothing was given yet."""
    network = PolicyNetwork((8,), memory="transformer", memory_size=8, memory_heads=2, memory_layers=2, memory_window=7)
    policy = made(dataclasses.replace(spec, network=network, target_return=5.0))
    export(policy, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    memory = policy.start(3)
    remembered, to_come = np.zeros_like(memory["core"]), np.full(3, 5, np.float32)
    shown = [output.name for output in session.get_outputs() if output.name in ("mean", "probabilities")]
    for _ in range(100):
        observations, begins = policy.spec.observation.sample(rng, 3), rng.random(3) < 0.05
        if policy.spec.is_masked:
            observations["action_mask"][:, 0] = 1
        memory, remembered = restarted(memory, begins, policy), np.where(begins[:, None], np.float32(0), remembered)
        to_come = np.where(begins, np.float32(5), to_come)
        noise, rewards = policy.distribution.noise(rng, (3,)), rng.standard_normal(3).astype(np.float32)
        step = policy.step(observations, memory, noise)
        inputs = {name.name: part for name, part in zip(session.get_inputs(), columns(observations), strict=False)}
        inputs |= {"memory": remembered, "return_to_come": to_come, "noise": noise}
        action, found, remembered = session.run(["action", *shown, "next_memory"], inputs)
        for mine, expected in ((action, step.actions), (found, step.shown[shown[0]].reshape(found.shape))):
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max()))
        np.testing.assert_allclose(remembered, step.memory["core"], rtol=1e-4, atol=1e-4)
        memory, to_come = policy.rewarded(step.memory, rewards), to_come - rewards


def columns(observations: Tree) -> list[Array]:
    return [part for _, part in leaves(observations)]
