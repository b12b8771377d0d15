"""The recorded minibatch step gives the numbers of the eager one, to the last bit."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.episode import Array
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.pqn import PQN
from learner.networks.actor_critic import Outputs
from learner.networks.distributions import DISTRIBUTIONS
from learner.optimisation.compiled import RecordedStep
from learner.run.presets import preset
from tests.learner import make_batch, make_spec, unrecordable, unrecordable_methods
from tests.learner.algorithms.valued import small_dqn, value_learner, valued_spec
from tests.learner.learners import Metrics, OwnFunction, OwnLoss, Steps, make_learner

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
LOSSES = {
    "ppo": PPO(ent_coef=0.01),
    "policy_gradient": PolicyGradient(ent_coef=0.01, normalize_entropy=True),
}
BY_GRADIENT = [name for name in DISTRIBUTIONS if name not in ("epsilon_greedy", "squashed_gaussian")]
VALUES: dict[str, tuple[DQN | PQN, dict[str, Any]]] = {
    "dqn": (small_dqn(), {}),
    "squared": (small_dqn(td_loss="squared"), {}),
    "double and dueling": (small_dqn(double=True, dueling=True, n_step=3), {}),
    "quantiles": (small_dqn(n_quantiles=5), {}),
    "prioritised": (small_dqn(prioritized=True), {}),
    "layer norm": (small_dqn(), {"layer_norm": True, "activation": "relu"}),
    "normalised": (small_dqn(), {"normalize_observations": True}),
    "all of it": (
        small_dqn(double=True, dueling=True, n_quantiles=5, prioritized=True, n_step=3),
        {"layer_norm": True, "normalize_observations": True},
    ),
    "pqn": (PQN(batch_size=16, n_epochs=2), {"layer_norm": True, "normalize_observations": True}),
}


@pytest.mark.parametrize("device", DEVICES)
def test_a_recorded_step_takes_the_eager_steps(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(10, 6, generator=generator).to(device) for _ in range(4)]
    start = torch.randn(6, generator=generator).to(device)
    mine, eager = ((start.clone(), torch.zeros((), device=device)) for _ in range(2))

    def gradient(state: tuple[Tensor, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = state[0].detach().requires_grad_()
            loss = torch.tanh(inputs @ leaf).square().mean()
            (direction,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), direction

    def descend(state: tuple[Tensor, Tensor], metrics: Tensor, direction: Tensor) -> Tensor:
        state[1].add_(1)
        state[0].sub_(direction / state[1])
        return metrics

    recorded = RecordedStep(functools.partial(gradient, mine), functools.partial(descend, mine), mine)
    for example in inputs:
        expected, direction = gradient(eager, example)
        descend(eager, expected, direction)
        replayed = recorded(example)
        torch.testing.assert_close(replayed, expected, rtol=0, atol=0 if device == "cpu" else 1e-6)
        assert not replayed.requires_grad
    torch.testing.assert_close(mine[0], eager[0], rtol=0, atol=0 if device == "cpu" else 1e-6)
    assert float(mine[1]) == 4


def after_updates(
    algorithm: Algorithm, actions: str, updates: int = 4, **changes: Any
) -> tuple[Array, dict[str, float]]:
    """Weights and metrics after updates of several minibatches each, from batches of different lengths."""
    config = {"n_epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    spec = make_spec(actions)
    learner = make_learner(spec, algorithm, **{**config, **changes}, seed=3)
    policy = learner.policy()
    metrics: dict[str, float] = {}
    for i in range(updates):
        policy, metrics = learner.update(make_batch(policy, [20, 11 + i, 7], seed=i))
    return learner.state()["parameters"], metrics


@pytest.mark.parametrize("actions", BY_GRADIENT)
@pytest.mark.parametrize("loss", LOSSES)
def test_recorded_updates_are_eager_ones_bit_for_bit(loss: str, actions: str) -> None:
    recorded, recorded_metrics = after_updates(LOSSES[loss], actions, compile=True)
    eager, eager_metrics = after_updates(LOSSES[loss], actions, compile=False)
    np.testing.assert_array_equal(recorded, eager)
    assert recorded_metrics == eager_metrics


@pytest.mark.parametrize("network", [{"memory": "gru"}, {"memory": "lstm", "normalize_observations": True}])
@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_a_memory_is_learned_recorded_as_it_is_eagerly(name: str, network: dict[str, Any]) -> None:
    options: dict[str, Any] = {"n_epochs": 3, "batch_size": 16, "learning_rate": 0.01, "sequence_length": 8}
    spec, algorithm = make_spec(**network), preset(name).algorithm
    recorded, eager = (make_learner(spec, algorithm, **options, compile=compile_) for compile_ in (True, False))
    policy = recorded.policy()
    for seed in range(4):
        batch = make_batch(policy, [20, 11 + seed, 7], seed=seed, terminated=[True, False, False])
        policy, metrics = recorded.update(batch)
        assert eager.update(batch)[1] == metrics
    np.testing.assert_array_equal(recorded.state()["parameters"], eager.state()["parameters"])
    assert recorded.notes() == []
    assert recorded._step._recorded is not None
    assert recorded._step._recorded.obstacle is None


@pytest.mark.parametrize("name", VALUES)
def test_values_are_learned_recorded_as_they_are_eagerly(name: str) -> None:
    """While statistics of observations and a target network change between recorded steps."""
    algorithm, network = VALUES[name]
    if isinstance(algorithm, DQN):
        algorithm = dataclasses.replace(algorithm, target_update_interval=3, tau=0.5)
    options: dict[str, Any] = {"learning_rate": 0.01, "seed": 3, "keeps_memory": True}
    spec = valued_spec(**network)
    recorded, eager = (value_learner(spec, algorithm, compile=compile_, **options) for compile_ in (True, False))
    policy = recorded.policy()
    for seed in range(6):
        batch = make_batch(policy, [20, 11 + seed, 7], seed=seed, terminated=[True, False, False])
        policy, metrics = recorded.update(batch)
        assert eager.update(batch)[1] == metrics
        assert metrics["train/gradient_steps"] > 3
    for key, array in recorded.state().items():
        np.testing.assert_array_equal(eager.state()[key], array, err_msg=key)
    assert [note for note in recorded.notes() if "unrecorded" in note] == []
    assert recorded._step._recorded is not None
    assert recorded._step._recorded.obstacle is None


# On a GPU sums may be taken in another order. Adam would blow a gradient of almost 0 up to a full step; SGD does not.


@needs_cuda
@pytest.mark.parametrize("actions", ["categorical", "gaussian"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_cuda_graph_gives_the_eager_updates(loss: str, actions: str) -> None:
    sgd: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "device": "cuda"}
    graph, graph_metrics = after_updates(LOSSES[loss], actions, compile=True, **sgd)
    eager, eager_metrics = after_updates(LOSSES[loss], actions, compile=False, **sgd)
    np.testing.assert_allclose(graph, eager, rtol=1e-4, atol=1e-5)
    assert graph_metrics == pytest.approx(eager_metrics, rel=1e-3, abs=1e-5)


@needs_cuda
@pytest.mark.parametrize("name", ["ppo", "impala", "vpg"])
def test_cuda_learns_what_the_cpu_learns(name: str) -> None:
    sgd: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "updates": 1}
    on_gpu, _ = after_updates(preset(name).algorithm, "categorical", device="cuda", **sgd)
    on_cpu, _ = after_updates(preset(name).algorithm, "categorical", device="cpu", **sgd)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)


def presence(outputs: Outputs, batch: Steps, config: PPO) -> tuple[Tensor, Metrics]:
    """A loss whose metrics say which of 40 steps are in the minibatch; a step's reward is its number."""
    loss = -(batch.advantages * outputs.log_probs).mean()
    return loss, {str(step): (batch.returns == step).float().sum() for step in range(40)}


@pytest.mark.parametrize("compile_it", [True, False])
@pytest.mark.parametrize("steps", [6, 16, 17, 32, 40], ids=lambda n: f"{n} steps")
def test_every_epoch_sees_every_step(steps: int, compile_it: bool) -> None:
    """Minibatches of 16: the last is filled up with steps that the epoch has seen, each once more at most."""
    loss = {"advantage": "reward_to_go", "gamma": 0.0}  # with γ = 0 a step's return is its reward
    update = {"n_epochs": 1, "batch_size": 16, "compile": compile_it}
    learner = make_learner(make_spec(), **loss, **update, kind=OwnLoss, function=presence)
    batch = make_batch(learner.policy(), [steps - 1, 1], rewards=range(steps))
    for _ in range(3):
        _, metrics = learner.update(batch)
        minibatches = metrics["train/gradient_steps"]
        seen = [round(metrics[f"train/{step}"] * minibatches) for step in range(40)]
        assert minibatches == -(-steps // 16)
        assert set(seen[:steps]) <= {1, 2}
        assert not any(seen[steps:])
        assert sum(seen) == (steps if steps < 16 else 16 * minibatches)


def test_minibatches_are_drawn_anew_in_every_epoch() -> None:
    loss = {"advantage": "reward_to_go", "gamma": 0.0}
    learner = make_learner(make_spec(), **loss, n_epochs=1, batch_size=16, kind=OwnLoss, function=presence)
    batch = make_batch(learner.policy(), [17], rewards=range(17))

    def filled_up() -> set[int]:
        _, metrics = learner.update(batch)
        return {step for step in range(17) if round(2 * metrics[f"train/{step}"]) == 2}

    first, second = filled_up(), filled_up()
    assert len(first) == len(second) == 15
    assert first != second


def test_batches_smaller_than_a_minibatch_are_one_each() -> None:
    """Whatever their lengths: nothing of the first is recorded for the next."""

    def after(batch_size: int | None, compile_it: bool) -> Array:
        update = {"n_epochs": 4, "batch_size": batch_size, "compile": compile_it}
        learner = make_learner(make_spec(), **update)
        for lengths in ([5, 4], [11], [3, 2, 1]):
            _, metrics = learner.update(make_batch(learner.policy(), lengths))
            assert metrics["train/gradient_steps"] == 4
        return learner.state()["parameters"]

    expected = after(None, compile_it=False)
    for batch_size, compile_it in ((64, True), (64, False), (None, True)):
        np.testing.assert_array_equal(after(batch_size, compile_it), expected)


# ---- losses that no recording can repeat


def learned(loss: OwnFunction, updates: int = 4, **changes: Any) -> tuple[Array, dict[str, float], list[str]]:
    """Weights, metrics and notes after updates of nine minibatches each."""
    update = {"n_epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    learner = make_learner(make_spec(), **{**update, **changes}, seed=3, kind=OwnLoss, function=loss)
    policy = learner.policy()
    metrics: dict[str, float] = {}
    for i in range(updates):
        policy, metrics = learner.update(make_batch(policy, [20, 11, 7], seed=i))
    return learner.state()["parameters"], metrics, [note for _, note in learner.notes()]


@pytest.mark.parametrize("kind", unrecordable.KINDS)
def test_what_cannot_be_recorded_is_not_and_one_line_says_so(kind: str) -> None:
    weights, metrics, notes = learned(unrecordable.make(kind))
    expected, expected_metrics, silence = learned(unrecordable.make(kind), compile=False)
    np.testing.assert_array_equal(weights, expected)
    assert metrics == expected_metrics
    assert not silence
    (note,) = notes
    assert note.startswith("the loss of 'tests.learner.learners:OwnLoss' runs unrecorded, so that a minibatch takes")
    assert "\n" not in note


def by_methods(kind: str, compile_it: bool) -> tuple[Array, list[str]]:
    """Weights and notes after 36 minibatches of an algorithm that people wrote their own into."""
    unrecordable_methods.forget()
    update = {"n_epochs": 3, "batch_size": 16, "learning_rate": 0.01, "seed": 3, "compile": compile_it}
    learner = make_learner(make_spec(), unrecordable_methods.Own, kind_=kind, **update)
    policy = learner.policy()
    for i in range(6):
        policy, _ = learner.update(make_batch(policy, [20, 11, 7], seed=i))
    return learner.state()["parameters"], [note for _, note in learner.notes()]


@pytest.mark.parametrize("kind", ["", *unrecordable_methods.KINDS])
def test_methods_and_modules_are_looked_into(kind: str) -> None:
    weights, notes = by_methods(kind, compile_it=True)
    expected, _ = by_methods(kind, compile_it=False)
    np.testing.assert_array_equal(weights, expected)
    assert len(notes) == (kind != "")


def test_the_note_names_the_operation_and_where_it_is() -> None:
    for kind, said in (("if", "__bool__ reads"), ("numpy", "numpy reads"), ("mask", "size depends on values")):
        (note,) = learned(unrecordable.make(kind), updates=1)[2]
        assert said in note
        assert f"{unrecordable.__file__}:" in note
    assert "rebound changes from minibatch to minibatch" in learned(unrecordable.make("average rebound"))[2][0]


def noisy(outputs: Outputs, batch: Steps, config: PPO) -> tuple[Tensor, Metrics]:
    """Random in every minibatch: dropout, noise made two ways."""
    advantages = torch.nn.functional.dropout(batch.advantages, 0.3) + 0.1 * torch.randn(len(batch.advantages))
    loss = -(advantages * outputs.log_probs).mean() + torch.rand(()) * (outputs.values - batch.returns).square().mean()
    return loss, {"noise": torch.rand_like(loss)}


def indexed(outputs: Outputs, batch: Steps, config: PPO) -> tuple[Tensor, Metrics]:
    """Whole numbers as indices: of one shape whatever the values."""
    order = batch.advantages.argsort()
    return -(batch.advantages[order] * outputs.log_probs[order])[: len(order) // 2].mean(), {}


@pytest.mark.parametrize("loss", [noisy, indexed])
def test_what_can_be_recorded_is(loss: OwnFunction) -> None:
    torch.manual_seed(1)
    weights, metrics, notes = learned(loss)
    torch.manual_seed(2)  # nobody else's random numbers matter
    expected, expected_metrics, _ = learned(loss, compile=False)
    np.testing.assert_array_equal(weights, expected)
    assert metrics == expected_metrics
    assert not notes


@pytest.mark.parametrize("compile_it", [True, False])
def test_a_random_loss_goes_on_from_a_checkpoint(compile_it: bool) -> None:
    update = {"n_epochs": 3, "batch_size": 16, "compile": compile_it}
    first, second = (make_learner(make_spec(), **update, seed=seed, kind=OwnLoss, function=noisy) for seed in (1, 2))
    batch = make_batch(first.policy(), [20, 11, 7])
    noise = [first.update(batch)[1]["train/noise"] for _ in range(2)]
    assert noise[0] != noise[1]
    second.load_state(first.state())
    assert first.update(batch)[1] == second.update(batch)[1]
    np.testing.assert_array_equal(first.state()["parameters"], second.state()["parameters"])
