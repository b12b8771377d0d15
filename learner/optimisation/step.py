"""One step of the optimiser on a minibatch: the gradient of a loss, meant over all learners, clipped and recorded."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from actors.episode import Array
from actors.errors import UserError
from learner.memory.memory import Columns
from learner.optimisation.compiled import RecordedStep
from learner.optimisation.config import OptimisationConfig
from learner.optimisation.optimizers import OPTIMIZERS, memory_for
from learner.optimisation.sharding import Shard

Metrics = dict[str, Tensor]
Answer = tuple[Tensor, Metrics, Tensor | None]
LossFunction = Callable[[Columns], "tuple[Tensor, Metrics] | tuple[Tensor, Metrics, Tensor]"]

LEARNERS_METRICS = frozenset(
    [
        "loss",
        "grad_norm",
        "learning_rate",
        "n_updates",
        "gradient_steps",
        "epochs",
        "mean_return_target",
        "behaviour_kl",
        "explained_variance",
        "memory_size",
        "samples_per_insert",
    ]
)
"""Names in train/ that are not a loss's to give."""


class GradientStep:
    """Owns all parameters of a network, as one vector of which its weights are views, and the optimiser's memory.

    So a step is one operation whatever the number of layers.

    Args:
        network: what is learned.
        loss: of a minibatch.
        config: how a gradient becomes a step.
        batch_size: of the minibatches that are recorded; others, as few as there may be, are not.
        shard: the place among learners that share the work.
        name: of the algorithm, for messages.
        users: what of the loss is the user's, and may keep something in Python from step to step.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: LossFunction,
        config: OptimisationConfig,
        batch_size: int | None,
        shard: Shard,
        name: str,
        users: Any = None,
    ) -> None:
        self._network, self._loss, self._config = network, loss, config
        self._batch_size, self._shard, self._name, self._users = batch_size, shard, name, users
        self.parameters = flatten(network)
        self._learned = learned(network)
        self._device = self.parameters.device
        self._learning_rate = torch.zeros((), device=self._device)
        self._memory = memory_for(self.parameters)
        self._recorded: RecordedStep | None = None
        self.metric_names: list[str] = []
        """The names of the metrics that a step answers, in order; known after the first step."""
        self._errors: Tensor | None = None
        self._steps = 0
        """In the last minibatch."""
        self._tells_errors = False
        self._has_told = False

    @property
    def errors(self) -> Tensor | None:
        """[B]: what the loss told of each step of the last minibatch, if it does; all learners must ask for it at once.

        The next step may overwrite it.
        """
        return None if self._errors is None else self._shard.gathered(self._errors, self._steps)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of the steps from now on."""
        self._learning_rate.fill_(learning_rate)

    def notes(self) -> list[str]:
        """What a person who trains should know, a line each, since the last call."""
        obstacle = self._recorded.obstacle if self._recorded else None
        if obstacle is None or self._has_told:
            return []
        self._has_told = True
        return [
            f"the loss of {self._name!r} runs unrecorded, so that a minibatch takes two to six times as long: "
            f"{obstacle}; what depends on values can be written with torch.where"
        ]

    def __call__(self, minibatch: Columns) -> Tensor:
        """Take a step; answers the metrics, [len(metric_names)], which the next call may overwrite.

        Args:
            minibatch: the same on all learners, each of which computes its part.
        """
        alone = self._shard.count == 1
        gradient = self._clipped_gradient if alone else self._gradient
        steps = _length(minibatch)
        is_usual = steps == self._batch_size
        minibatch = self._shard.share(minibatch)
        finish = self._descend if alone else functools.partial(self._descend_together, _length(minibatch))
        # A CUDA graph would hold what NCCL does as well.
        recordable = self._config.compile and is_usual and (alone or self._device.type == "cpu")
        if not recordable:
            return self._answered(finish(*gradient(minibatch)), minibatch, steps)
        if self._recorded is None:
            names, state = tuple(minibatch), [self.parameters, *self._memory.values()]
            by_place = lambda *columns: gradient(dict(zip(names, columns, strict=True)))  # noqa: E731
            self._recorded = RecordedStep(by_place, finish, state, self._users)
        return self._answered(self._recorded(*minibatch.values()), minibatch, steps)

    def look(self) -> None:
        """Notice before an update whether something that the loss can see has changed since the last."""
        if self._recorded:
            self._recorded.look()

    def _answered(self, terms: Tensor, mine: Columns, steps: int) -> Tensor:
        """The metrics of what a step gave; keeps the errors that come before them."""
        if not self._tells_errors:
            return terms
        self._errors, self._steps = terms[: _length(mine)], steps
        return terms[_length(mine) :]

    def _gradient(self, steps: Columns) -> tuple[Tensor, Tensor]:
        """What the loss tells of each step, if it does, and the metrics, in one row; and its gradient, [P].

        Our part looks at no tensor's values, to be recorded.

        Raises:
            UserError: the loss answers something else than a loss and metrics.
        """
        with torch.enable_grad():
            loss, metrics, errors = check_answer(self._name, self._loss(steps), _length(steps))
            gradients = torch.autograd.grad(loss, self._learned, materialize_grads=True)
        metrics = {**metrics, "loss": loss}
        names = [*metrics, "grad_norm"]
        if self.metric_names not in ([], names):
            raise UserError(
                f"the loss of {self._name!r} answers other metrics than before: {', '.join(metrics)} after "
                f"{', '.join(self.metric_names)}; they must be the same in every minibatch"
            )
        self.metric_names = names
        self._tells_errors = errors is not None
        terms = torch.stack([value.detach().to(loss.dtype) for value in metrics.values()])
        if errors is not None:
            terms = torch.cat([errors.detach().to(loss.dtype), terms])
        return terms, torch.cat([gradient.flatten() for gradient in gradients])

    def _clipped_gradient(self, minibatch: Columns) -> tuple[Tensor, Tensor]:
        return self._clip(*self._gradient(minibatch))

    def _clip(self, metrics: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Shorten the gradient to ``max_grad_norm``; its length before that joins the metrics."""
        norm = torch.linalg.vector_norm(gradient)
        if self._config.max_grad_norm < math.inf:
            gradient = gradient * torch.clamp(self._config.max_grad_norm / (norm + 1e-6), max=1.0)
        return torch.cat([metrics, norm[None]]), gradient

    def _descend(self, metrics: Tensor, gradient: Tensor) -> Tensor:
        step, eps = OPTIMIZERS[self._config.optimizer], self._config.optimizer_eps
        step(self.parameters, gradient, self._learning_rate, self._memory, eps)
        return metrics

    def _descend_together(self, steps: int, terms: Tensor, gradient: Tensor) -> Tensor:
        errors, metrics = terms.tensor_split([steps if self._tells_errors else 0])
        mean = self._shard.mean(torch.cat([metrics, gradient]), steps)
        metrics = self._descend(*self._clip(*mean.split([len(metrics), len(gradient)])))
        return torch.cat([errors, metrics])

    def state(self) -> dict[str, Array]:
        """Parameters and the optimiser's memory, as arrays by name."""
        memory = {f"optimizer.{name}": value.cpu().numpy().copy() for name, value in self._memory.items()}
        return {"parameters": self.parameters.detach().cpu().numpy().copy(), **memory}

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on from a state of a network of the same shape.

        Raises:
            UserError: it is of another.
        """
        if state["parameters"].shape != self.parameters.shape:
            raise UserError(
                f"the checkpoint has {state['parameters'].size} parameters, "
                f"this configuration {self.parameters.numel()}"
            )
        self.parameters.copy_(torch.from_numpy(state["parameters"].copy()))
        for name, memory in self._memory.items():
            memory.copy_(torch.from_numpy(state[f"optimizer.{name}"].copy()))


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def learned(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that gradients change: not a target network's."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def flatten(network: nn.Module) -> Tensor:
    """One vector of all parameters that are learned; the network's own become views into it."""
    parameters = learned(network)
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    for parameter, view in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = view.view_as(parameter)
    return flat


def check_answer(name: str, answer: object, steps: int) -> Answer:
    """What a loss answered, if it is a loss to differentiate, metrics of one number each, and maybe one for each step.

    Raises:
        UserError: it is not; one line that names the algorithm and the metric.
    """
    if not (isinstance(answer, tuple) and len(answer) in (2, 3) and isinstance(answer[1], dict)):
        raise UserError(f"the loss of {name!r} must be a tensor and a dict of metrics, not {type(answer).__name__}")
    loss, metrics, errors = answer if len(answer) == 3 else (*answer, None)
    if errors is not None and not (isinstance(errors, Tensor) and errors.shape == (steps,)):
        shape = list(errors.shape) if isinstance(errors, Tensor) else type(errors).__name__
        raise UserError(
            f"the loss of {name!r}: what it says of the steps must be [{steps}], a number each, not {shape}"
        )
    for metric, value in {"what is descended": loss, **metrics}.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"the loss of {name!r}: {metric} is a {type(value).__name__}; it must be a tensor of one number "
                "(leave .item() and float() out)"
            )
        if value.ndim:
            raise UserError(
                f"the loss of {name!r}: {metric} has shape {list(value.shape)}; give one number, its mean() say"
            )
    if not loss.requires_grad:
        raise UserError(
            f"the loss of {name!r} does not depend on the networks' outputs, so that nothing can be learned from it"
        )
    if taken := LEARNERS_METRICS & metrics.keys():
        raise UserError(
            f"the loss of {name!r}: the learner itself logs a metric {min(taken)}; call yours by another name"
        )
    return loss, metrics, errors
