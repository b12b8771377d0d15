"""One step of the optimiser: what a loss may answer, what is learned, and what is told of each step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from actors.errors import UserError
from learner.memory.memory import Columns
from learner.optimisation.config import OptimisationConfig
from learner.optimisation.sharding import Shard
from learner.optimisation.step import GradientStep, check_answer, flatten, learned

torch.set_num_threads(1)  # as LearnerActor does: a second thread costs small networks more than it brings

LOSS = torch.tensor(1.0, requires_grad=True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (LOSS, "must be a tensor and a dict of metrics, not Tensor"),
        ((LOSS, {"kl": 0.5}), "kl is a float; it must be a tensor of one number"),
        ((LOSS, {"kl": torch.zeros(3)}), r"kl has shape \[3\]; give one number, its mean\(\) say"),
        ((LOSS, {"grad_norm": LOSS}), "the learner itself logs a metric grad_norm; call yours by another name"),
        ((LOSS, {"loss": LOSS}), "the learner itself logs a metric loss"),
        ((0.5, {}), "what is descended is a float"),
        ((LOSS[None], {}), r"what is descended has shape \[1\]"),
        ((torch.zeros(()), {}), "does not depend on the networks' outputs"),
        ((LOSS, {}, torch.zeros(2)), r"what it says of the steps must be \[3\], a number each, not \[2\]"),
        ((LOSS, {}, torch.zeros(3, 1)), r"what it says of the steps must be \[3\], a number each, not \[3, 1\]"),
        ((LOSS, {}, [0.0, 0.0, 0.0]), r"what it says of the steps must be \[3\], a number each, not list"),
        ((LOSS, {}, torch.zeros(3), 0), "must be a tensor and a dict of metrics, not tuple"),
        ((LOSS, {"memory_size": LOSS}), "the learner itself logs a metric memory_size"),
    ],
)
def test_what_no_loss_may_answer_is_one_line(answer: object, said: str) -> None:
    with pytest.raises(UserError, match=f"^the loss of 'mine'.*{said}") as error:
        check_answer("mine", answer, 3)
    assert "\n" not in str(error.value)


def test_what_a_loss_may_answer() -> None:
    metrics, errors = {"kl": torch.tensor(0.5)}, torch.ones(3)
    assert check_answer("mine", (LOSS, metrics), 3) == (LOSS, metrics, None)
    assert check_answer("mine", (LOSS, metrics, errors), 3) == (LOSS, metrics, errors)


class Partly(nn.Module):
    """Weights that are learned before and after one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([[1.0, 2], [3, 4]]))
        self.held = nn.Parameter(torch.tensor([7.0]), requires_grad=False)
        self.last = nn.Parameter(torch.tensor([5.0]))


def test_only_what_is_learned_is_in_the_vector() -> None:
    network = Partly()
    flat = flatten(network)
    assert flat.tolist() == [1, 2, 3, 4, 5]
    assert [len(own) for own in learned(network)] == [2, 1]
    flat.mul_(2)
    assert (network.first.tolist(), network.held.tolist(), network.last.tolist()) == ([[2, 4], [6, 8]], [7], [10])


def make_step(network: Partly, compile_: bool, told: bool = True) -> GradientStep:
    """Descends w · mean x; says of a step that it is x from 3."""

    def loss(steps: Columns) -> tuple[Tensor, dict[str, Tensor]] | tuple[Tensor, dict[str, Tensor], Tensor]:
        mean = steps["x"].mean()
        answer = network.last.squeeze() * mean, {"mean": mean}
        return (*answer, (steps["x"] - 3).abs()) if told else answer

    config = OptimisationConfig(optimizer="sgd", max_grad_norm=100.0, compile=compile_)
    step = GradientStep(network, loss, config, 4, Shard(), "mine")
    step.set_learning_rate(0.1)
    return step


@pytest.mark.parametrize("compile_", [True, False])
def test_what_is_told_of_each_step_is_kept_apart_from_the_metrics(compile_: bool) -> None:
    """Of minibatches that are recorded, replayed and compared, and of one that is smaller and is none of these."""
    network = Partly()
    step = make_step(network, compile_)
    last = 5.0
    for x in ([1.0, 2, 3, 4], [5, 5, 7, 7], [0, 0, 0, 2], [1, 1], [8, 0, 8, 0]):
        metrics = step({"x": torch.tensor(x).float()})
        mean = sum(x) / len(x)
        assert step.metric_names == ["mean", "loss", "grad_norm"]
        assert metrics.tolist() == pytest.approx([mean, last * mean, mean])
        assert step.errors is not None
        assert step.errors.tolist() == [abs(number - 3) for number in x]
        last -= 0.1 * mean
        assert network.last.item() == pytest.approx(last)
        assert (network.first.tolist(), network.held.tolist()) == ([[1, 2], [3, 4]], [7])


@pytest.mark.parametrize("compile_", [True, False])
def test_a_loss_may_tell_nothing(compile_: bool) -> None:
    step = make_step(Partly(), compile_, told=False)
    for _ in range(3):
        assert len(step({"x": torch.ones(4)})) == 3
        assert step.errors is None
