"""Learner: turns batches of episodes into a better policy. It knows nothing of Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.masks import allowed
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spec import PolicySpec
from actors.trees import Tree
from learner.compiled import RecordedStep
from learner.hyperparameters import LossConfig, UpdateConfig
from learner.losses import ESTIMATORS, Loss, Minibatch, Outputs, approx_kl, check_answer, find_loss, standardise
from learner.networks import ActorCritic
from learner.normalizer import Normalizer
from learner.optimizers import OPTIMIZERS, memory_for
from learner.returns import Trajectories
from learner.sharding import Columns, Shard

if TYPE_CHECKING:
    from learner.initial import Initial


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
        initial: what it starts from; None: random weights.

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
        initial: Initial | None = None,
    ) -> None:
        self.spec = spec
        self.loss_config = loss_config
        self.update_config = update_config
        self.device = find_device(update_config.device)
        self._shard = shard or Shard()
        self._loss = loss or find_loss(loss_config.loss)
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ActorCritic(spec, loss_config.has_critic, critic_sizes)
        self.network = network.to(self.device)
        self._parameters = flatten(self.network)
        self._learning_rate = torch.zeros((), device=self.device)
        self._memory = memory_for(self._parameters)
        self._normalizer = (
            Normalizer(spec.seen.inputs, spec.statistics_dtype) if spec.network.normalize_observations else None
        )
        self._recorded: RecordedStep | None = None
        self._metric_names: list[str] = []
        self._seed = seed
        self._notes: list[str] = []
        if initial:
            self._start_from(initial)
        self.version = spec.version
        self.trained: dict[str, Any] = dict(spec.trained)

    def _start_from(self, initial: Initial) -> None:
        """Take over a policy, the critic if it is of this one's size, and statistics of observations."""
        self.network.load_policy_weights(initial.policy.weights)
        own = sum(weight.numel() for weight in self.network.critic.parameters()) if self.network.critic else 0
        if initial.critic is not None and initial.critic.size == own:
            self._parameters[-own:].copy_(torch.from_numpy(initial.critic.copy()))
        if self._normalizer and initial.statistics:
            self._normalizer.load_state(initial.statistics)
        elif self._normalizer:
            weights = initial.policy.weights
            self._normalizer.start_from(weights["observation_mean"], weights["observation_std"])

    def device_in_words(self) -> str:
        """Where it computes."""
        return f"cuda ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else "cpu"

    def policy(self) -> Policy:
        """The policy as it is now, ready to travel."""
        weights = self.network.policy_weights()
        if self._normalizer:
            weights |= {"observation_mean": self._normalizer.mean, "observation_std": self._normalizer.std}
        return Policy(dataclasses.replace(self.spec, version=self.version, trained=self.trained), weights)

    def update(self, *batches: EpisodeBatch, progress_remaining: float = 1.0) -> tuple[Policy, dict[str, float]]:
        """Learn from batches, laid end to end as one.

        Args:
            batches: experience, flown by this policy or a recent one.
            progress_remaining: from 1 to 0 in a run; a linear schedule multiplies the learning rate with it.

        Returns:
            The new policy, and the metrics by their names in the log.

        Raises:
            NonFiniteError: a term of the loss, the gradient or a weight is NaN or infinite; names it and the update.
        """
        with self._seeded():
            return self._learn(EpisodeBatch.concatenate(batches), progress_remaining)

    def _learn(self, batch: EpisodeBatch, progress_remaining: float) -> tuple[Policy, dict[str, float]]:
        config = self.update_config
        learning_rate = config.learning_rate * (progress_remaining if config.schedule == "linear" else 1)
        self._learning_rate.fill_(learning_rate)
        # First, as Brax does: the first batch too is learned from normalised, and a policy is published with statistics
        # that it was trained with. The one that flew had older ones, so that even on-policy the ratios begin near 1.
        if self._normalizer:
            self._normalizer.update(self.spec.seen.encode(batch.observations))
        columns, estimates = self._prepare(batch)
        sums: Tensor | None = None
        steps = 0
        for epochs in range(1, config.n_epochs + 1):
            for minibatch in self._minibatches(columns):
                terms = self._step(minibatch)
                sums = terms.clone() if sums is None else sums.add_(terms)
                steps += 1
            if epochs < config.n_epochs and self._has_drifted(columns):
                break
        assert sums is not None
        self._shard.agree(self._parameters)
        means = (sums / steps).tolist()
        metrics = {f"train/{name}": mean for name, mean in zip(self._metric_names, means, strict=True)}
        self._check_finite(metrics)
        self.version += 1
        metrics |= estimates | {
            "train/learning_rate": learning_rate,
            "train/n_updates": self.version,
            "train/gradient_steps": steps,
            "train/epochs": epochs,
        }
        return self.policy(), metrics

    def notes(self) -> list[str]:
        """What a person who trains should know, a line each, since the last call."""
        notes, self._notes = self._notes, []
        return notes

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        """Random numbers that a loss draws follow from the run's seed and the update's number, and disturb nobody's."""
        seed = np.random.SeedSequence((self._seed, self.version, self._shard.rank)).generate_state(1)[0].item()
        cuda = [self.device] if self.device.type == "cuda" else []
        python, legacy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)
            for device in cuda:
                torch.cuda.default_generators[device.index or 0].manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(legacy)

    def _prepare(self, batch: EpisodeBatch) -> tuple[Columns, dict[str, float]]:
        """Move a batch to the device, once, and estimate its advantages.

        Returns:
            The columns that minibatches are drawn from, and metrics.
        """
        config, device = self.loss_config, self.device

        def upload(array: Array) -> Tensor:
            return torch.tensor(array, device=device) if device.type == "cuda" else torch.from_numpy(array.copy())

        observations = upload(self._normalized(batch.observations))
        allows = upload(allowed(batch.observations)) if self.spec.is_masked else None
        actions, log_probs = upload(batch.actions), upload(batch.notes["log_prob"])
        values = torch.zeros_like(log_probs)
        final_values = values.new_zeros(batch.num_segments)
        log_ratios = torch.zeros_like(log_probs)
        with torch.no_grad():
            if config.has_critic:
                final_values = self.network.value(upload(self._normalized(batch.final_observations)))
                values = self.network.value(observations)
            if config.advantage == "vtrace":
                behaviour, log_probs = log_probs, self.network(observations, actions, allows).log_probs
                log_ratios = log_probs - behaviour
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
            if config.advantage == "vtrace":
                metrics["train/behaviour_kl"] = float(approx_kl(log_ratios))
            if config.has_critic:
                variance = returns.var(correction=0)
                metrics["train/explained_variance"] = float(
                    1 - (returns - values).var(correction=0) / (variance + 1e-8)
                )
        columns = {
            "observations": observations,
            "actions": actions,
            "log_probs": log_probs,
            "advantages": advantages,
            "returns": returns,
        }
        return columns if allows is None else columns | {"allows": allows}, metrics

    def _normalized(self, observations: Tree) -> Array:
        """[n, inputs] float32, standardised where the policy does so."""
        inputs = self.spec.seen.encode(observations)
        if self._normalizer is None:
            return inputs
        standard = (inputs - self._normalizer.mean) / self._normalizer.std
        return np.clip(standard, -NORMALIZED_LIMIT, NORMALIZED_LIMIT).astype(np.float32, copy=False)

    def _minibatches(self, columns: Columns) -> Iterable[Columns]:
        """One epoch's minibatches, all of one size: the last is filled up with steps from the first."""
        count, size = len(columns["returns"]), self.update_config.batch_size
        if size is None or size >= count:
            size = count
        else:
            order = torch.randperm(count, generator=self._generator)
            order = torch.cat([order, order[: -count % size]]).to(self.device)
            columns = {name: column[order] for name, column in columns.items()}
        split = {name: column.unflatten(0, (-1, size)) for name, column in columns.items()}
        if self.loss_config.normalize_advantage:
            split["advantages"] = standardise(split["advantages"])
        return (dict(zip(split, minibatch, strict=True)) for minibatch in zip(*split.values(), strict=True))

    def _has_drifted(self, columns: Columns) -> bool:
        """Whether the policy is past ``target_kl``, by the whole batch; all learners answer the same."""
        if self.update_config.target_kl is None:
            return False
        part = self._shard.share(columns)
        with torch.no_grad():
            kl = approx_kl(self._outputs(part).log_probs - part["log_probs"])
        return float(self._shard.mean(kl[None], len(part["log_probs"]))) > 1.5 * self.update_config.target_kl

    def _step(self, minibatch: Columns) -> Tensor:
        """One step of the optimiser; returns the metrics, [len(self._metric_names)]."""
        alone = self._shard.count == 1
        gradient = self._clipped_gradient if alone else self._gradient
        recordable = self.update_config.compile and len(minibatch["returns"]) == self.update_config.batch_size
        minibatch = self._shard.share(minibatch)
        finish = self._descend if alone else functools.partial(self._descend_together, len(minibatch["returns"]))
        if recordable and (alone or self.device.type == "cpu"):  # a CUDA graph would hold what NCCL does as well
            if self._recorded is None:
                names, state = tuple(minibatch), [self._parameters, *self._memory.values()]
                by_place = lambda *columns: gradient(dict(zip(names, columns, strict=True)))  # noqa: E731
                self._recorded = RecordedStep(by_place, finish, state, self._loss)
            known = self._recorded.obstacle
            terms = self._recorded(*minibatch.values())
            if self._recorded.obstacle != known:
                self._notes.append(
                    f"loss {self.loss_config.loss!r} runs unrecorded, so that a minibatch takes two to six times as "
                    f"long: {self._recorded.obstacle}; what depends on values can be written with torch.where"
                )
            return terms
        return finish(*gradient(minibatch))

    def _outputs(self, steps: Columns) -> Outputs:
        return self.network(steps["observations"], steps["actions"], steps.get("allows"))  # type: ignore[no-any-return]

    def _gradient(self, steps: Columns) -> tuple[Tensor, Tensor]:
        """The metrics, and the gradient of the loss, [P]; our part looks at no tensor's values, to be recorded.

        Raises:
            UserError: the loss answers something else than a loss and metrics.
        """
        with torch.enable_grad():
            outputs = self._outputs(steps)
            constants = {name: steps[name] for name in ("log_probs", "advantages", "returns")}
            batch = Minibatch(**constants, max_entropy=self.network.distribution.max_entropy)
            loss, metrics = check_answer(self.loss_config.loss, self._loss(outputs, batch, self.loss_config))
            gradients = torch.autograd.grad(loss, list(self.network.parameters()), materialize_grads=True)
        metrics = {**metrics, "loss": loss}
        names = [*metrics, "grad_norm"]
        if self._metric_names not in ([], names):
            raise UserError(
                f"loss {self.loss_config.loss!r} answers other metrics than before: {', '.join(metrics)} after "
                f"{', '.join(self._metric_names)}; they must be the same in every minibatch"
            )
        self._metric_names = names
        values = [value.detach().to(loss.dtype) for value in metrics.values()]
        return torch.stack(values), torch.cat([gradient.flatten() for gradient in gradients])

    def _clipped_gradient(self, minibatch: Columns) -> tuple[Tensor, Tensor]:
        return self._clip(*self._gradient(minibatch))

    def _clip(self, metrics: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Shorten the gradient to ``max_grad_norm``; its length before that joins the metrics."""
        norm = torch.linalg.vector_norm(gradient)
        if self.update_config.max_grad_norm < math.inf:
            gradient = gradient * torch.clamp(self.update_config.max_grad_norm / (norm + 1e-6), max=1.0)
        return torch.cat([metrics, norm[None]]), gradient

    def _descend(self, metrics: Tensor, gradient: Tensor) -> Tensor:
        step, eps = OPTIMIZERS[self.update_config.optimizer], self.update_config.optimizer_eps
        step(self._parameters, gradient, self._learning_rate, self._memory, eps)
        return metrics

    def _descend_together(self, steps: int, metrics: Tensor, gradient: Tensor) -> Tensor:
        mean = self._shard.mean(torch.cat([metrics, gradient]), steps)
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
            "scale_actions": np.array(self.spec.scale_actions),
            "seed": np.array(self._seed),
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
        scaled = bool(state.get("scale_actions", False))  # not of those that were saved before actions could be
        self.spec = dataclasses.replace(self.spec, scale_actions=scaled)
        self._seed = int(state.get("seed", self._seed))
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
