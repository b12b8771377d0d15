"""Action values that are a table, and learners of action values."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from actors.spaces import Box, Discrete
from actors.spec import PolicySpec
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.networks.q_network import QNetwork
from learner.optimisation.config import OptimisationConfig
from learner.run.learner import Learner
from tests.learner import make_spec


def valued_spec(**network: Any) -> PolicySpec:
    """Four observations, three actions, two small layers."""
    return make_spec("epsilon_greedy", **network)


def table_network(online: Tensor, target: Tensor) -> QNetwork:
    """Networks that say these quantiles, [S, A, N], of observations that are rows of the unit matrix."""
    states, actions, n_quantiles = online.shape
    spec = make_spec("epsilon_greedy", Box((states,)), Discrete(actions), hidden_sizes=())
    network = QNetwork(spec, n_quantiles=n_quantiles).to(online.dtype)
    with torch.no_grad():
        for values, table in ((network.online, online), (network.target, target)):
            values.last.weight.copy_(table.flatten(1).T)
    return network


def small_dqn(**options: Any) -> DQN:
    """Of minibatches of 8, one for each eight steps, from the first batch on."""
    return DQN(**{"batch_size": 8, "replay_ratio": 1 / 8, "learning_starts": 1, "buffer_size": 1_000, **options})


def value_learner(spec: PolicySpec, algorithm: Algorithm, **options: Any) -> Learner:
    """A learner on the CPU.

    Args:
        spec: of the policy.
        algorithm: with its options.
        options: of the optimiser, or Learner's own.
    """
    names = {option.name for option in dataclasses.fields(OptimisationConfig)} & options.keys()
    optimisation = OptimisationConfig(**{name: options.pop(name) for name in names})
    return Learner(spec, algorithm, optimisation, **{"device": "cpu", **options})
