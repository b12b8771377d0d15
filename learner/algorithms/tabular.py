"""Tables of action values: Q-learning, SARSA and expected SARSA, of many environments at once. Free of torch, too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np

from actors.errors import UserError, unknown
from actors.spaces import Discrete, Space
from learner.algorithms.algorithm import Experience, require_between, require_count
from learner.algorithms.returns import n_step
from learner.algorithms.value_based import ValueBased

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actors.spec import PolicySpec
    from actors.trees import Array, Tree
    from learner.algorithms.algorithm import Metrics
    from learner.memory.latest import Latest
    from learner.memory.memory import Columns
    from learner.networks.config import Critic
    from learner.networks.table import Table

TARGETS = ("max", "sarsa", "expected")


@dataclasses.dataclass(frozen=True)
class Tabular(ValueBased):
    """q(s, a) ← q(s, a) + α · mean TD error of the cell's steps in a minibatch; α is the learning rate."""

    target: Literal["max", "sarsa", "expected"] = "max"
    """What follows r + γ: the best value, Q-learning (Watkins 1989); that of the action taken next, SARSA (Rummery and
    Niranjan 1994); the mean over ε-greedy actions, expected SARSA (van Seijen et al. 2009)."""
    initial_value: float = 0.0
    """The value of every cell at first; one above what can be had is optimistic, and explores."""
    visit_exponent: float = 0.0
    """α is divided by a cell's steps so far to this power: above ½ and up to 1 averages out what is random."""
    n_epochs: int = 1
    """Passes over each batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target not in TARGETS:
            raise unknown("target", self.target, TARGETS)
        require_between("visit_exponent", self.visit_exponent, 0, 1)
        require_count("n_epochs", self.n_epochs)
        if not np.isfinite(self.initial_value):
            raise UserError(f"initial_value must be a number, not {self.initial_value}")

    @property
    def most_lag(self) -> int | None:
        """Any number where the target asks for no policy's actions, else 1."""
        return None if self.target == "max" else 1

    def require_fit(self, spec: PolicySpec) -> None:
        """Make sure that a table can hold it.

        Raises:
            UserError: observations are not numbered, or the network is more than a table.
        """
        super().require_fit(spec)
        if not isinstance(spec.observation, Discrete):
            raise UserError(
                f"a table has a row for each of a number of observations, and those of {spec.env_id} are "
                f"{spec.observation.in_words()}: preset dqn takes any; --wrappers Tabular numbers whole numbers"
            )
        network = spec.network
        if network.hidden_sizes or network.normalize_observations or network.layer_norm:
            raise UserError("a table has no layers: hidden_sizes must be empty, and nothing be normalised")

    def make_network(self, spec: PolicySpec, critic: Critic) -> Table:  # noqa: ARG002
        """The table."""
        from learner.networks.table import Table

        return Table(spec, self.initial_value)

    def make_memory(self, generator: torch.Generator) -> Latest:
        """The last batch, ``n_epochs`` times over."""
        from learner.memory.latest import Latest

        return Latest(self.n_epochs, self.batch_size, generator, weighed)

    def encode(self, seen: Space, observations: Tree) -> Array:
        """Row numbers, [T] int64."""
        assert isinstance(seen, Discrete)
        assert isinstance(observations, np.ndarray)
        return np.asarray(observations - seen.start, np.int64)

    def prepare(self, network: Table, flown: Experience) -> tuple[Columns, dict[str, float]]:
        """Steps, where they lead, what is done there, and each one's share of α."""
        import torch

        ahead = n_step(flown.rewards, flown.ends, flown.terminated, flown.longest, self.gamma, 1)
        beyond = flown.actions.new_full((len(flown.ends),), -1)
        cells = network.cells(flown.encoded, flown.actions)
        network.visits.index_add_(0, cells, torch.ones_like(flown.rewards))
        columns = {
            "states": flown.encoded,
            "cells": cells,
            "actions": flown.actions,
            "rewards": flown.rewards,
            "discounts": ahead.discounts,
            "next_states": torch.cat([flown.encoded, flown.final_encoded])[ahead.rows],
            "next_actions": torch.cat([flown.actions, beyond])[ahead.rows],
            "rates": network.visits[cells] ** -self.visit_exponent,
        }
        return columns, {"states_visited": float((network.visits.view_as(network.q_values) > 0).any(1).sum())}

    def loss(self, network: Table, steps: Columns) -> tuple[Tensor, Metrics]:
        """½ mean weight · rate · TD²: its gradient is −rate · mean TD, cell by cell."""
        import torch

        table = network.q_values
        predicted = table[steps["states"]].gather(1, steps["actions"][:, None]).squeeze(1)
        with torch.no_grad():
            errors = steps["rewards"] + steps["discounts"] * self.following(network, steps) - predicted
            directions = steps["weights"] * steps["rates"] * errors
        return -(directions * predicted).mean(), {"q_values": predicted.mean(), "td_error": errors.abs().mean()}

    def following(self, network: Table, steps: Columns) -> Tensor:
        """[B]: the value of where the steps lead.

        SARSA takes the mean over ε-greedy actions where a batch ends before the next action is taken.
        """
        import torch

        from learner.networks.distributions import EpsilonGreedy

        values = network.q_values[steps["next_states"]]
        if self.target == "max":
            return values.amax(1)
        assert isinstance(network.distribution, EpsilonGreedy)
        expected = (network.distribution.probabilities(values) * values).sum(1)
        if self.target == "expected":
            return expected
        taken = values.gather(1, steps["next_actions"].clamp(min=0)[:, None]).squeeze(1)
        return torch.where(steps["next_actions"] < 0, expected, taken)


def weighed(minibatches: Columns) -> Columns:
    """Weigh the steps of [minibatches, B] by B over the number of those of the same cell in their minibatch.

    A mean with these weights is a sum over cells of the mean of each, however the minibatch is shared among learners.
    """
    import torch

    cells = minibatches["cells"]
    rows, size = cells.shape
    places = (cells + (cells.max() + 1) * torch.arange(rows, device=cells.device)[:, None]).flatten()
    counts = torch.bincount(places)[places].view(rows, size)
    return minibatches | {"weights": size / counts}
