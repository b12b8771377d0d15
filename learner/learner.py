"""Learner: turns batches of episodes into a better policy. It knows nothing of Ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.policy import NORMALIZED_LIMIT, Policy, PolicySpec
from learner.compiled import record
from learner.hyperparameters import LossConfig, UpdateConfig
from learner.losses import ESTIMATORS, Loss, Minibatch, find_loss, standardise
from learner.networks import ActorCritic
from learner.normalizer import Normalizer
from learner.optimizers import OPTIMIZERS, memory_for
from learner.returns import Trajectories
from learner.sharding import Shard


class Learner:
    """Owns the networks, the optimiser and the running statistics of observations; one call is one update.

    All parameters live in one flat vector, of which the networks' weights are views, so that a step of the optimiser is
    one operation whatever the number of layers.

    Args:
        spec: the policy to learn; its ``version`` counts updates from there.
        loss_config: the objective.
        update_config: how it is climbed.
        seed: of the initial weights and of the minibatches.
        critic_sizes: units of the critic's hidden layers; None: as the policy's.
        loss: the loss function, where ``loss_config.loss`` is not known by name in this process.
        shard: its place among learners that share the work; None: it is alone.

    Raises:
        UserError: no such loss, or a CUDA device asked for and not there.
    """

    def __init__(
        self,
        spec: PolicySpec,
        loss_config: LossConfig,
        update_config: UpdateConfig,
        seed: int = 0,
        critic_sizes: tuple[int, ...] | None = None,
        loss: Loss | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.spec = spec
        self.loss_config = loss_config
        self.update_config = update_config
        self.device = find_device(update_config.device)
        self._shard = shard or Shard()
        self._loss = loss or find_loss(loss_config.loss)
        self._max_entropy = (
            math.log(spec.action_size) if spec.actions == "categorical" and spec.action_size > 1 else 1.0
        )
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ActorCritic(spec, loss_config.has_critic, critic_sizes)
        self.network = network.to(self.device)
        self._parameters = flatten(self.network)
        self._learning_rate = torch.zeros((), device=self.device)
        self._memory = memory_for(self._parameters)
        self._normalizer = Normalizer(spec.layer_sizes[0]) if spec.normalize_observations else None
        self._recorded: Callable[..., Tensor] | None = None
        self._metric_names: list[str] = []
        self.version = spec.version
        self.trained: dict[str, Any] = dict(spec.trained)

    def device_in_words(self) -> str:
        """Where it computes."""
        return f"cuda ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else "cpu"

    def policy(self) -> Policy:
        """The policy as it is now, ready to travel."""
        weights = self.network.policy_weights()
        if self._normalizer:
            weights |= {"observation_mean": self._normalizer.mean, "observation_std": self._normalizer.std}
        return Policy(dataclasses.replace(self.spec, version=self.version, trained=self.trained), weights)

    def update(self, *batches: EpisodeBatch, progress: float = 0.0) -> tuple[Policy, dict[str, float]]:
        """Learn from batches, laid end to end as one.

        Args:
            batches: experience, flown by this policy or a recent one.
            progress: share of the run that is done, from 0 to 1, for the schedule.

        Returns:
            The new policy, and the metrics by their names in the log.

        Raises:
            NonFiniteError: a term of the loss, the gradient or a weight is NaN or infinite; names it and the update.
        """
        config = self.update_config
        batch = EpisodeBatch.concatenate(batches)
        learning_rate = config.learning_rate * (1 - progress if config.schedule == "linear" else 1)
        self._learning_rate.fill_(learning_rate)
        columns, estimates = self._prepare(batch)
        sums: Tensor | None = None
        steps = epochs = 0
        for epoch in range(config.n_epochs):
            epochs += 1
            for minibatch in self._minibatches(columns):
                terms = self._step(minibatch)
                sums = terms.clone() if sums is None else sums.add_(terms)
                steps += 1
            if config.target_kl is not None and epoch + 1 < config.n_epochs:
                if "approx_kl" not in self._metric_names:
                    raise UserError(f"target_kl needs approx_kl among the metrics of loss {self.loss_config.loss!r}")
                kl = float(terms[self._metric_names.index("approx_kl")])
                if kl > 1.5 * config.target_kl:
                    break
        assert sums is not None
        self._shard.agree(self._parameters)
        means = (sums / steps).tolist()
        metrics = {f"train/{name}": mean for name, mean in zip(self._metric_names, means, strict=True)}
        self._check_finite(metrics)
        if self._normalizer:
            self._normalizer.update(batch.observations.reshape(batch.num_steps, -1))
        self.version += 1
        metrics |= estimates | {
            "train/learning_rate": learning_rate,
            "train/n_updates": self.version,
            "train/gradient_steps": steps,
            "train/epochs": epochs,
        }
        return self.policy(), metrics

    def _prepare(self, batch: EpisodeBatch) -> tuple[list[Tensor], dict[str, float]]:
        """Move a batch to the device, once, and estimate its advantages.

        Returns:
            The columns that minibatches are drawn from (observations, actions, log-probabilities, advantages, returns),
            and metrics.
        """
        config, device = self.loss_config, self.device

        def upload(array: Array) -> Tensor:
            return torch.tensor(array, device=device) if device.type == "cuda" else torch.from_numpy(array.copy())

        observations = upload(self._normalized(batch.observations))
        actions, log_probs = upload(batch.actions), upload(batch.log_probs)
        values = torch.zeros_like(log_probs)
        final_values = values.new_zeros(batch.num_segments)
        log_ratios = torch.zeros_like(log_probs)
        with torch.no_grad():
            if config.has_critic:
                final_values = self.network.value(upload(self._normalized(batch.final_observations)))
                values = self.network.value(observations)
            if config.advantage == "vtrace":
                log_ratios = self.network(observations, actions).log_probs - log_probs
            steps = Trajectories(
                rewards=upload(batch.rewards) * config.reward_scale,
                ends=upload(np.cumsum(batch.segment_lengths, dtype=np.int64) - 1),
                terminated=upload(batch.terminated.astype(np.float32)),
                longest=int(batch.segment_lengths.max()),
                values=values,
                final_values=final_values,
                log_ratios=log_ratios,
            )
            advantages, returns = ESTIMATORS[config.advantage](steps, config)
            metrics = {"train/mean_return_target": float(returns.mean())}
            if config.has_critic:
                variance = returns.var(correction=0)
                metrics["train/explained_variance"] = float(
                    1 - (returns - values).var(correction=0) / (variance + 1e-8)
                )
        return [observations, actions, log_probs, advantages, returns], metrics

    def _normalized(self, observations: Array) -> Array:
        """[n, inputs] float32, standardised where the policy does so."""
        observations = observations.reshape(len(observations), -1)
        if self._normalizer is None:
            return observations
        standard = (observations - self._normalizer.mean) / self._normalizer.std
        return np.clip(standard, -NORMALIZED_LIMIT, NORMALIZED_LIMIT)

    def _minibatches(self, columns: Sequence[Tensor]) -> Iterable[list[Tensor]]:
        """One epoch's minibatches, all of one size: the last is filled up with steps from the first."""
        count, size = len(columns[0]), self.update_config.batch_size
        if size is None or size >= count:
            size = count
        else:
            order = torch.randperm(count, generator=self._generator)
            order = torch.cat([order, order[: -count % size]]).to(self.device)
            columns = [column[order] for column in columns]
        observations, actions, log_probs, advantages, returns = (column.unflatten(0, (-1, size)) for column in columns)
        if self.loss_config.normalize_advantage:
            advantages = standardise(advantages)
        return map(list, zip(observations, actions, log_probs, advantages, returns, strict=True))

    def _step(self, minibatch: list[Tensor]) -> Tensor:
        """One step of the optimiser; returns the metrics, [len(self._metric_names)]."""
        alone = self._shard.count == 1
        gradient = self._clipped_gradient if alone else self._gradient
        finish = self._descend if alone else self._descend_together
        recordable = self.update_config.compile and len(minibatch[0]) == self.update_config.batch_size
        minibatch = self._shard.share(minibatch)
        if recordable and (alone or self.device.type == "cpu"):  # a CUDA graph would hold what NCCL does as well
            if self._recorded is None:
                state = [self._parameters, *self._memory.values()]
                self._recorded = record(gradient, finish, state, minibatch)
            return self._recorded(*minibatch)
        return finish(*gradient(*minibatch))

    def _gradient(self, *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        """The metrics, and the gradient of the loss, [P]; it looks at no tensor's values, to be recorded."""
        observations, actions, log_probs, advantages, returns = minibatch
        with torch.enable_grad():
            outputs = self.network(observations, actions)
            batch = Minibatch(log_probs, advantages, returns, self._max_entropy)
            loss, metrics = self._loss(outputs, batch, self.loss_config)
            gradients = torch.autograd.grad(loss, list(self.network.parameters()), materialize_grads=True)
        metrics = {**metrics, "loss": loss}
        self._metric_names = [*metrics, "grad_norm"]
        self._steps = len(observations)
        return torch.stack([value.detach() for value in metrics.values()]), torch.cat([g.flatten() for g in gradients])

    def _clipped_gradient(self, *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        return self._clip(*self._gradient(*minibatch))

    def _clip(self, metrics: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Shorten the gradient to ``max_grad_norm``; its length before that joins the metrics."""
        norm = torch.linalg.vector_norm(gradient)
        if self.update_config.max_grad_norm < math.inf:
            gradient = gradient * torch.clamp(self.update_config.max_grad_norm / (norm + 1e-6), max=1.0)
        return torch.cat([metrics, norm[None]]), gradient

    def _descend(self, metrics: Tensor, gradient: Tensor) -> Tensor:
        OPTIMIZERS[self.update_config.optimizer](self._parameters, gradient, self._learning_rate, self._memory)
        return metrics

    def _descend_together(self, metrics: Tensor, gradient: Tensor) -> Tensor:
        mean = self._shard.mean(torch.cat([metrics, gradient]), self._steps)
        return self._descend(*self._clip(*mean.split([len(metrics), len(gradient)])))

    def _check_finite(self, metrics: dict[str, float]) -> None:
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not bad and not bool(torch.isfinite(self._parameters).all()):
            bad = ["a weight"]
        if bad:
            raise NonFiniteError(f"update {self.version + 1}: {', '.join(bad)} became NaN or infinite")

    def state(self) -> dict[str, Array]:
        """All that a learner needs to go on exactly where this one is, as arrays by name."""
        state: dict[str, Array] = {
            "version": np.array(self.version),
            "parameters": self._parameters.detach().cpu().numpy().copy(),
            "generator": self._generator.get_state().numpy().copy(),
        }
        state |= {f"optimizer.{name}": value.cpu().numpy().copy() for name, value in self._memory.items()}
        if self._normalizer:
            state |= {f"normalizer.{name}": value for name, value in self._normalizer.state().items()}
        return state

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on from a state of a learner of the same configuration.

        Raises:
            UserError: the state is of other networks.
        """
        if state["parameters"].shape != self._parameters.shape:
            raise UserError(
                f"the checkpoint has {state['parameters'].size} parameters, "
                f"this configuration {self._parameters.numel()}"
            )
        self.version = int(state["version"])
        self._parameters.copy_(torch.from_numpy(state["parameters"].copy()))
        self._generator.set_state(torch.from_numpy(state["generator"].copy()))
        for name, memory in self._memory.items():
            memory.copy_(torch.from_numpy(state[f"optimizer.{name}"].copy()))
        if self._normalizer:
            self._normalizer.load_state(
                {k.removeprefix("normalizer."): v for k, v in state.items() if k.startswith("normalizer.")}
            )


def find_device(device: str) -> torch.device:
    """The device to compute on.

    Raises:
        UserError: CUDA asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available to the learner; use 'cpu' or 'auto'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def flatten(network: torch.nn.Module) -> Tensor:
    """One vector of all parameters; the network's own become views into it."""
    parameters = list(network.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    for parameter, view in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = view.view_as(parameter)
    return flat
