"""Replay memories of numbered steps."""

from __future__ import annotations

import pytest
import torch

from learner.memory.memory import Columns
from learner.memory.replay import Priorities, Replay

BY_ERROR = Priorities(alpha=0.6, beta=0.4, beta_steps=1_000)
EITHER = pytest.mark.parametrize("priorities", [None, BY_ERROR], ids=["uniform", "prioritised"])


def make_replay(
    capacity: int = 10,
    batch_size: int = 4,
    ratio: float = 1.0,
    learning_starts: int = 1,
    seed: int = 0,
    priorities: Priorities | None = None,
) -> Replay:
    generator = torch.Generator().manual_seed(seed)
    return Replay(capacity, batch_size, ratio, learning_starts, generator, priorities)


def steps(first: int, count: int) -> Columns:
    """Steps that are numbered, in columns of several shapes and types."""
    numbers = torch.arange(first, first + count)
    return {"step": numbers, "observations": numbers[:, None] + torch.tensor([0.0, 0.5]), "allows": numbers % 2 == 0}


def drawn(memory: Replay) -> list[Columns]:
    return [minibatch for minibatches in memory.draw() for minibatch in minibatches]


def held(memory: Replay) -> list[int]:
    return sorted(memory.state()["column.step"].tolist())
