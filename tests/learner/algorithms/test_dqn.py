"""DQN: targets and losses by hand, gradients against the textbook's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.errors import UserError
from learner.algorithms.dqn import DQN, chosen, huber, quantile_huber
from learner.memory.memory import Columns
from learner.networks.q_network import QNetwork
from tests.learner import property_test
from tests.learner.algorithms.valued import table_network, valued_spec

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

# In state 0 both networks like different actions best, in state 1 the same.
ONLINE = torch.tensor([[1.0, 5, 2], [0, 1, 9]])
TARGET = torch.tensor([[4.0, -3, 6], [2, 3, 7]])


def steps_of(
    states: list[int], actions: list[int], returns: list[float], discounts: list[float], following: list[int]
) -> Columns:
    """Steps between the two states."""
    one_hot = torch.eye(2)
    return {
        "observations": one_hot[states],
        "actions": torch.tensor(actions),
        "returns": torch.tensor(returns),
        "discounts": torch.tensor(discounts),
        "next_observations": one_hot[following],
    }


STEPS = steps_of([0, 1, 1], [1, 2, 0], [1, 2, 3], [0.5, 0.25, 0], [0, 1, 0])


@pytest.mark.parametrize(
    ("double", "expected"),
    [
        (False, [1 + 0.5 * 6, 2 + 0.25 * 7, 3]),  # the target's best
        (True, [1 + 0.5 * -3, 2 + 0.25 * 7, 3]),  # what the target says of the learned network's best
    ],
)
def test_targets_by_hand(double: bool, expected: list[float]) -> None:
    network = table_network(ONLINE[..., None], TARGET[..., None])
    assert DQN(double=double).targets(network, STEPS).tolist() == [[target] for target in expected]


@pytest.mark.parametrize(("double", "expected"), [(False, [1 + 0.5 * 4, 2 + 0.25 * 3, 3]), (True, [3, 2.75, 3])])
def test_targets_are_of_actions_that_are_allowed(double: bool, expected: list[float]) -> None:
    network = table_network(ONLINE[..., None], TARGET[..., None])
    allows = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    targets = DQN(double=double).targets(network, {**STEPS, "next_allows": allows})
    assert targets.squeeze(1).tolist() == expected


@pytest.mark.parametrize(("double", "best"), [(False, [2, 1]), (True, [0, 2])])
def test_quantile_targets_are_those_of_the_action_of_the_best_mean(double: bool, best: list[int]) -> None:
    online = torch.tensor([[[3.0, 5], [0, 7], [1, 1]], [[0, 9], [0, 0], [8, 4]]])
    target = torch.tensor([[[3.0, 0], [-9, 9], [1, 3]], [[0, 1], [5, -2], [1, 0]]])
    steps = steps_of([0, 0], [0, 0], [1, 2], [0.5, 1], [0, 1])
    targets = DQN(double=double, n_quantiles=2).targets(table_network(online, target), steps)
    expected = [[1 + 0.5 * float(x) for x in target[0, best[0]]], [2 + float(x) for x in target[1, best[1]]]]
    assert targets.tolist() == expected


@pytest.mark.parametrize(
    ("td_loss", "losses"),
    [
        ("squared", [0.5, 0.5 * 5.25**2, 4.5]),
        ("huber", [0.5, 4.75, 2.5]),
    ],
)
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 0.25]])
def test_loss_by_hand(td_loss: Any, losses: list[float], weights: list[float] | None) -> None:
    """q(o, a) are 5, 9 and 0, targets 4, 3.75 and 3; a weight multiplies its step's loss and nothing else."""
    network = table_network(ONLINE[..., None], TARGET[..., None])
    weighed = {} if weights is None else {"weights": torch.tensor(weights)}
    loss, metrics, errors = DQN(td_loss=td_loss).loss(network, {**STEPS, **weighed})
    assert loss.item() == pytest.approx(np.mean(np.array(losses) * (weights or [1, 1, 1])))
    assert errors.tolist() == [1, 5.25, 3]
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"q_values": 14 / 3, "td_error": 9.25 / 3}
    )


def test_quantile_loss_by_hand() -> None:
    """θ = (0, 1) at τ = ¼, ¾; targets (−1, 3): u = −1, 3 and −2, 2, of Huber losses ½, 2½ and 1½, 1½."""
    online = torch.zeros(2, 3, 2)
    online[0, 1] = torch.tensor([0.0, 1])
    target = torch.tensor([[-3.0, 5]]).expand(2, 3, 2)
    steps = {**steps_of([0], [1], [0.5], [0.5], [1]), "weights": torch.tensor([0.5])}
    loss, _, errors = DQN(n_quantiles=2).loss(table_network(online, target), steps)
    by_hand = (0.75 * 0.5 + 0.25 * 2.5) / 2 + (0.25 * 1.5 + 0.75 * 1.5) / 2
    assert loss.item() == pytest.approx(0.5 * by_hand)
    assert errors.tolist() == [pytest.approx(0.5)]  # means of 1 and ½


def test_huber_is_pytorchs() -> None:
    errors = torch.tensor([-3.0, -1, -0.5, 0, 1e-3, 0.99, 1, 1.01, 7], dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros_like(errors)
    for theirs in (torch.nn.functional.huber_loss, torch.nn.functional.smooth_l1_loss):
        expected = theirs(errors, nothing, reduction="none")
        torch.testing.assert_close(huber(errors), expected)
        gradients = [torch.autograd.grad(loss.sum(), errors)[0] for loss in (huber(errors), expected)]
        torch.testing.assert_close(*gradients)


@property_test
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_quantile_huber_is_the_loop(count: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, targets = 2 * rng.normal(size=(count, n)), 2 * rng.normal(size=(count, m))
    expected = np.zeros(count)
    for step in range(count):
        for i in range(n):
            for j in range(m):
                u = targets[step, j] - predicted[step, i]
                loss = 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5
                expected[step] += abs((i + 0.5) / n - (u < 0)) * loss / m
    found = quantile_huber(torch.from_numpy(predicted), torch.from_numpy(targets))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_quantiles_of_a_sample_minimise_their_loss() -> None:
    """Of evenly spread targets, most of them far beyond Huber's middle: those at τ = ⅛, ⅜, ⅝ and ⅞."""
    targets = torch.linspace(0, 10_000, 1_000, dtype=torch.float64)[None]
    theta = torch.tensor([[1250.0, 3750, 6250, 8750]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantile_huber(theta, targets).sum(), theta)
    assert gradient.abs().max() < 2e-3
    for shift in (-500.0, 500.0):
        moved = quantile_huber(theta.detach() + shift, targets)
        assert moved > quantile_huber(theta.detach(), targets)


def random_steps(network: QNetwork, weighed: bool, seed: int = 0, count: int = 12) -> Columns:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)

    steps = {
        "observations": normal(count, 4),
        "actions": torch.randint(3, (count,), generator=generator),
        "returns": normal(count),
        "discounts": torch.rand(count, dtype=torch.float64, generator=generator),
        "next_observations": normal(count, 4),
        "next_allows": torch.rand(count, 3, generator=generator) < 0.7,
    }
    steps["next_allows"][:, 1] = True
    return steps | ({"weights": torch.rand(count, dtype=torch.float64, generator=generator)} if weighed else {})


def textbook(config: DQN, network: QNetwork, steps: Columns) -> Tensor:
    """A step at a time: (w/B) L(R + γ^h q⁻(s', argmax) − q(s, a)), in PyTorch's own losses."""
    total = torch.zeros((), dtype=torch.float64)
    for t in range(len(steps["actions"])):
        following = steps["next_observations"][t : t + 1]
        with torch.no_grad():
            chooser = network.online if config.double else network.target
            q_values = chooser(following)[0].mean(1)
            best = max((a for a in range(3) if steps["next_allows"][t, a]), key=lambda a: float(q_values[a]))
            target = steps["returns"][t] + steps["discounts"][t] * network.target(following)[0, best]
        theta = network.online(steps["observations"][t : t + 1])[0, steps["actions"][t]]
        if config.n_quantiles > 1:
            n = len(theta)
            loss = torch.zeros((), dtype=torch.float64)
            for i in range(n):
                u = (target - theta[i]).detach()
                tilts = torch.where(u < 0, 1 - (i + 0.5) / n, (i + 0.5) / n)
                each = torch.nn.functional.smooth_l1_loss(theta[i].expand(n), target, reduction="none")
                loss = loss + (tilts * each).mean()
        elif config.td_loss == "squared":
            loss = 0.5 * torch.nn.functional.mse_loss(theta, target)
        else:
            loss = torch.nn.functional.smooth_l1_loss(theta, target)
        total = total + loss * (steps["weights"][t] if "weights" in steps else 1)
    return total / len(steps["actions"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"double": True},
        {"td_loss": "squared"},
        {"dueling": True, "double": True},
        {"n_quantiles": 4},
        {"n_quantiles": 4, "dueling": True, "double": True},
    ],
    ids=["plain", "double", "squared", "dueling", "quantiles", "all"],
)
@pytest.mark.parametrize("weighed", [False, True])
def test_gradients_are_the_textbooks(options: dict[str, Any], weighed: bool) -> None:
    config = DQN(**options)
    torch.manual_seed(0)
    network = config.make_network(valued_spec(layer_norm=True), None).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # the target's others than the learned
    steps = random_steps(network, weighed)
    loss, _, errors = config.loss(network, steps)
    expected = textbook(config, network, steps)
    torch.testing.assert_close(loss, expected)
    learned = [*network.online.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not errors.requires_grad
    with torch.no_grad():
        predicted = chosen(network.quantiles(steps["observations"]), steps["actions"]).mean(1)
        torch.testing.assert_close(errors, (config.targets(network, steps).mean(1) - predicted).abs())


@pytest.mark.parametrize(("dueling", "n_quantiles"), [(False, 1), (True, 1), (False, 7), (True, 7)])
def test_its_options_make_the_network(dueling: bool, n_quantiles: int) -> None:
    network = DQN(dueling=dueling, n_quantiles=n_quantiles).make_network(valued_spec(), None)
    assert network.quantiles(torch.zeros(2, 4)).shape == (2, 3, n_quantiles)
    assert (network.online.value is not None) == dueling
    assert network.target is not network.online


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_quantiles": 0}, "n_quantiles must be 1 or more, not 0"),
        ({"td_loss": "hubert"}, r"unknown td_loss 'hubert'; did you mean huber\?"),
    ],
)
def test_impossible_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}") as error:
        DQN(**options)
    assert "\n" not in str(error.value)
