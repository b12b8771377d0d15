"""Learner: turns batches of episodes into a better policy. It knows nothing of Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from actors.cores import CORE
from actors.distributions import DISTRIBUTIONS
from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.masks import allowed
from actors.policy import NORMALIZED_LIMIT, Policy
from actors.spec import PolicySpec
from actors.trees import Tree
from learner.algorithms.algorithm import Algorithm, Experience
from learner.algorithms.offline import Offline
from learner.algorithms.registry import name_of
from learner.dataset.windows import Windows
from learner.memory.frames import Frames
from learner.memory.memory import Columns, Memory
from learner.memory.packing import pooling
from learner.networks.config import Critic
from learner.networks.encoder import Encoder
from learner.networks.normalizer import Normalizer
from learner.networks.transformer import TorchTransformer
from learner.optimisation.config import OptimisationConfig
from learner.optimisation.sharding import Shard
from learner.optimisation.step import GradientStep

if TYPE_CHECKING:
    from learner.dataset.dataset import Dataset
    from learner.run.initial import Initial


class Learner:
    """A network, a memory and an algorithm, and running statistics of observations; one call is one update.

    Args:
        spec: the policy to learn; its ``version`` counts updates from there.
        algorithm: what is learned from batches, and how.
        optimisation: how a gradient becomes a step.
        seed: of the initial weights and of what the memory draws.
        critic: what judges the policy; None: layers as the policy's.
        device: where to compute: auto, cpu or cuda.
        shard: its place among learners that share the work; None: it is alone.
        initial: what it starts from; None: random weights.
        keeps_memory: whether its state holds the memory.
        dataset: the recorded episodes that it learns from; None: it is given batches.

    Raises:
        UserError: a CUDA device is asked for and not there.
    """

    def __init__(
        self,
        spec: PolicySpec,
        algorithm: Algorithm,
        optimisation: OptimisationConfig,
        seed: int = 0,
        critic: Critic | None = None,
        device: str = "auto",
        shard: Shard | None = None,
        initial: Initial | None = None,
        keeps_memory: bool = False,
        dataset: Dataset | None = None,
    ) -> None:
        self.spec = spec
        self.algorithm = algorithm
        self.optimisation = optimisation
        self.device = find_device(device)
        self._shard = shard or Shard()
        self._keeps_memory = keeps_memory
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = algorithm.make_network(spec, critic or Critic()).to(self.device)
        loss = functools.partial(algorithm.loss, self.network)
        name, size = name_of(algorithm), algorithm.batch_size
        for module in self.network.modules():
            if isinstance(module, Encoder):
                module.in_bfloat16 = optimisation.bfloat16
        if self.network.encoder is not None and self.device.type == "cpu":
            optimisation = dataclasses.replace(optimisation, compile=False)  # convolutions gain nothing by a recording
        self._step = GradientStep(self.network, loss, optimisation, size, self._shard, name, loss)
        self._normalizer = (
            Normalizer(spec.seen.inputs, spec.statistics_dtype) if spec.network.normalize_observations else None
        )
        self._seed = seed
        self._memory = self._recorded(dataset) if dataset else algorithm.make_memory(self._generator)
        self._fingerprint = dataset.fingerprint if dataset else None
        if initial:
            self._start_from(initial)
        self.version = spec.version
        self.trained: dict[str, Any] = dict(spec.trained)
        self._steps = self._gradient_steps = 0
        """What was learned from, and steps of the optimiser, so far."""
        self._begin()

    def _recorded(self, dataset: Dataset) -> Memory:
        """The memory of recorded episodes; their statistics are those of the policy."""
        algorithm, spec, policy = self.algorithm, self.spec, self.network
        assert isinstance(algorithm, Offline)
        distribution = DISTRIBUTIONS[spec.distribution].of(spec, policy.policy_weights())
        if self._normalizer:
            for observed in Windows(dataset, spec, distribution, 1).observed():
                self._normalizer.update(observed)
        if isinstance(policy.core, TorchTransformer):
            policy.core.set_returns(float(dataset.returns.mean()), float(dataset.returns.std()) or 1.0)
        return algorithm.recorded(dataset, spec, distribution, self._generator, self.device)

    def _begin(self) -> None:
        """Set what follows the run's schedules or statistics, before anybody acts or learns."""
        with torch.no_grad():
            self.algorithm.begin(self.network, self._steps)
            if self._normalizer:
                mean, std = self._normalizer.mean, self._normalizer.std
                self.network.set_statistics(*(torch.from_numpy(part).to(self.device) for part in (mean, std)))

    def _start_from(self, initial: Initial) -> None:
        """Take over a policy, the critic if it is of this one's size, and statistics of observations."""
        self.network.load_policy_weights(initial.policy.weights)
        critic = self._step.parameters[self.network.num_policy_parameters :]  # the policy's come first
        critics = np.zeros(0) if initial.critic is None else initial.critic
        if critics.size == critic.numel():
            critic.copy_(torch.from_numpy(critics.copy()))
            self._rescale(initial.reward_scale or self.algorithm.reward_scale)
        self.network.catch_up()
        if self._normalizer and initial.statistics:
            self._normalizer.load_state(initial.statistics)
        elif self._normalizer:
            weights = initial.policy.weights
            self._normalizer.start_from(weights["observation_mean"], weights["observation_std"])

    def _rescale(self, reward_scale: float) -> None:
        """Have values that were learned of rewards on another scale be on this run's."""
        with torch.no_grad():
            for layer in self.network.value_layers():
                for parameter in layer.parameters():
                    parameter.mul_(self.algorithm.reward_scale / reward_scale)

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
        """Learn from batches, laid end to end as one, or from what is recorded.

        Args:
            batches: experience, flown by this policy or a recent one; none where episodes are recorded.
            progress_remaining: from 1 to 0 in a run; a linear schedule multiplies the learning rate with it.

        Returns:
            The new policy, and the metrics by their names in the log.

        Raises:
            NonFiniteError: a term of the loss, the gradient or a weight is NaN or infinite; names it and the update.
        """
        with self._seeded():
            return self._learn(EpisodeBatch.concatenate(batches) if batches else None, progress_remaining)

    def _learn(self, batch: EpisodeBatch | None, progress_remaining: float) -> tuple[Policy, dict[str, float]]:
        learning_rate = self.optimisation.learning_rate * (
            progress_remaining if self.optimisation.schedule == "linear" else 1
        )
        self._step.set_learning_rate(learning_rate)
        columns, estimates = self._take_in(batch) if batch else ({}, {})
        metrics = self._descend(columns)
        for tensor in (self._step.parameters, *(own for _, own in self._unlearned())):
            self._shard.agree(tensor)
        self._check_finite(metrics)
        self.version += 1
        self._steps += batch.num_steps if batch else 0
        self._begin()
        metrics |= {f"train/{name}": value for name, value in (estimates | self._memory.figures()).items()}
        metrics |= {"train/learning_rate": learning_rate, "train/n_updates": self.version}
        return self.policy(), metrics

    def _take_in(self, batch: EpisodeBatch) -> tuple[Columns, dict[str, float]]:
        """Put a batch into the memory; answers what ``prepare`` made of it."""
        # First, as Brax does: the first batch too is learned from normalised, and a policy is published with statistics
        # that it was trained with. The one that flew had older ones, so that even on-policy the ratios begin near 1.
        if self._normalizer:
            self._normalizer.update(self.spec.seen.encode(batch.observations))
        self._begin()
        with torch.no_grad():
            prepared = self.algorithm.prepare(self.network, self._uploaded(batch))
        columns, estimates = check_prepared(name_of(self.algorithm), prepared)
        self._memory.add(columns)
        return columns, estimates

    def _descend(self, columns: Columns) -> dict[str, float]:
        """Take all steps of an update; answers the means of their metrics, and how many there were."""
        self._step.look()
        sums: Tensor | None = None
        steps = passes = 0
        for minibatches in self._memory.draw():
            with torch.no_grad():
                if passes and self.algorithm.is_enough(self.network, self._shard.share(columns), self._shard.mean):
                    break
            passes += 1
            for minibatch in minibatches:
                terms = self._step(minibatch)
                sums = terms.clone() if sums is None else sums.add_(terms)
                steps += 1
                self._gradient_steps += 1
                if self._memory.heeds_errors and (errors := self._step.errors) is not None:
                    self._memory.told(errors)
                with torch.no_grad():
                    self.algorithm.follow(self.network, self._gradient_steps)
        means = [] if sums is None else (sums / steps).tolist()  # a replay that is filled before it is learned from
        metrics = {f"train/{name}": mean for name, mean in zip(self._step.metric_names, means, strict=bool(means))}
        return metrics | {"train/gradient_steps": steps, "train/epochs": passes}

    def notes(self) -> list[tuple[int, str]]:
        """What a person who trains should know, since the last call: levels of the log, and a line each."""
        told = [(logging.INFO, note) for note in self._memory.notes()]
        return told + [(logging.WARNING, note) for note in self._step.notes()]

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

    def _uploaded(self, batch: EpisodeBatch) -> Experience:
        """A batch on the device, moved there once."""
        device = self.device

        def upload(array: Array) -> Tensor:
            return torch.tensor(array, device=device) if device.type == "cuda" else torch.from_numpy(array.copy())

        seen, columns = self.spec.seen, (batch.observations, batch.final_observations)
        encoded: list[Any]
        if source := pooling(seen):
            pool, *places = map(upload, source.pooled(*columns, batch.earlier, batch.segment_lengths))
            encoded = [Frames(pool, some, source.frames) for some in places]
            standard = [frames[:] for frames in encoded]
        else:
            encoded = [upload(self.algorithm.encode(seen, column)) for column in columns]
            standard = [upload(self._normalized(column)) for column in columns] if self._normalizer else encoded
        allows = [upload(allowed(column, self.spec)) if self.spec.is_masked else None for column in columns]
        return Experience(
            observations=standard[0],
            final_observations=standard[1],
            encoded=encoded[0],
            final_encoded=encoded[1],
            allows=allows[0],
            final_allows=allows[1],
            actions=upload(batch.actions),
            rewards=upload(self._clipped(batch.rewards)) * self.algorithm.reward_scale,
            notes={name: upload(note) for name, note in batch.notes.items()},
            ends=upload(np.cumsum(batch.segment_lengths, dtype=np.int64) - 1),
            terminated=upload(batch.terminated.astype(np.float32)),
            longest=int(batch.segment_lengths.max()),
            memory=upload(batch.memories[CORE]) if CORE in batch.memories else None,
        )

    def _clipped(self, rewards: Array) -> Array:
        limit = self.algorithm.reward_clip
        return rewards if limit == math.inf else np.clip(rewards, -limit, limit)

    def _normalized(self, observations: Tree) -> Array:
        """[n, inputs] float32, standardised."""
        assert self._normalizer is not None
        inputs = self.spec.seen.encode(observations)
        standard = (inputs - self._normalizer.mean) / self._normalizer.std
        return np.clip(standard, -NORMALIZED_LIMIT, NORMALIZED_LIMIT).astype(np.float32, copy=False)

    def _check_finite(self, metrics: dict[str, float]) -> None:
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not bad and not bool(torch.isfinite(self._step.parameters).all()):
            bad = ["a weight"]
        if bad:
            raise NonFiniteError(f"update {self.version + 1}: {', '.join(bad)} became NaN or infinite")

    def state(self) -> dict[str, Array]:
        """All that a learner needs to go on exactly where this one is, as arrays by name."""
        state: dict[str, Array] = {
            "version": np.array(self.version),
            "steps": np.array(self._steps),
            "gradient_steps": np.array(self._gradient_steps),
            "scale_actions": np.array(self.spec.scale_actions),
            "seed": np.array(self._seed),
            "generator": self._generator.get_state().numpy().copy(),
            **self._step.state(),
        }
        if self._fingerprint is not None:
            state["recorded"] = self._fingerprint
        if self._normalizer:
            state |= {f"normalizer.{name}": value for name, value in self._normalizer.state().items()}
        state |= {f"network.{name}": tensor.cpu().numpy().copy() for name, tensor in self._unlearned()}
        if self._keeps_memory:
            state |= {f"memory.{name}": value for name, value in self._memory.state().items()}
        return state

    def _unlearned(self) -> Iterator[tuple[str, Tensor]]:
        """What the network holds that no gradient changes: a target network, counts."""
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad:
                yield name, parameter.detach()
        lasting = self.network.state_dict()
        yield from ((name, buffer) for name, buffer in self.network.named_buffers() if name in lasting)

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on from a state of a learner of the same configuration.

        Raises:
            UserError: the state is of other networks.
        """
        self._step.load_state(state)
        self.version = int(state["version"])
        scaled = bool(state.get("scale_actions", False))  # not of those that were saved before actions could be
        self.spec = dataclasses.replace(self.spec, scale_actions=scaled)
        self._seed = int(state.get("seed", self._seed))
        self._generator.set_state(torch.from_numpy(state["generator"].copy()))
        self._steps, self._gradient_steps = int(state.get("steps", 0)), int(state.get("gradient_steps", 0))
        if self._normalizer:
            self._normalizer.load_state(_part(state, "normalizer."))
        for name, tensor in self._unlearned():
            if f"network.{name}" in state:
                tensor.copy_(torch.from_numpy(state[f"network.{name}"].copy()))
        self._memory.load_state(_part(state, "memory."))
        self._begin()


def _part(state: dict[str, Array], prefix: str) -> dict[str, Array]:
    """What of a state has names with a prefix, by the names without it."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def check_prepared(name: str, prepared: object) -> tuple[Columns, dict[str, float]]:
    """What ``prepare`` answered, if it is columns of one length and numbers.

    Raises:
        UserError: it is not; one line that names the algorithm and the column.
    """
    if not (isinstance(prepared, tuple) and len(prepared) == 2 and all(isinstance(part, dict) for part in prepared)):
        raise UserError(f"algorithm {name!r}: prepare must answer a dict of columns and one of numbers")
    columns, numbers = prepared
    for column, values in columns.items():
        if not (isinstance(values, Frames) or (isinstance(values, Tensor) and values.ndim)):
            raise UserError(f"algorithm {name!r}: prepare gives a column {column} that is no tensor of steps")
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"algorithm {name!r}: prepare must give columns of one length, not {lengths}")
    for number, value in numbers.items():
        if not isinstance(value, int | float):
            raise UserError(f"algorithm {name!r}: prepare gives {number} as a {type(value).__name__}, not a number")
    return columns, numbers


def find_device(device: str) -> torch.device:
    """The device to compute on.

    Raises:
        UserError: CUDA asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available to the learner; use 'cpu' or 'auto'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
