"""What every core is, in numpy: what a policy remembers from step to step.

A core stands after the hidden layers and before the output layer. Its memory is one row of numbers for each episode,
of which the first are what the output layer reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from actors.trees import Array

if TYPE_CHECKING:
    from actors.spec import PolicySpec

CORE = "core"
"""The name of a core's memory in ``Policy.start``."""
MOST_KEPT = 2**18
"""Numbers that a transformer remembers: 1.4 MB of text with every request."""


class Core(ABC):
    """One step of memory: memory [B, M], input [B, inputs] -> memory [B, M]; the first ``units`` are what is read.

    Args:
        spec: of a policy.
        weights: the policy's; those of ``weight_shapes`` are read.
    """

    is_stored = True
    """Whether experience carries what is remembered, for who learns from it."""
    unlearned: frozenset[str] = frozenset()
    """Those of its weights that no gradient changes."""
    acts_for_return = False
    """Whether it acts for a return that is asked for: ``PolicySpec.target_return``."""
    reads_observations = False
    """Whether it stands in the place of hidden layers, and reads observations as they are standardised, not clipped."""

    def __init__(self, spec: PolicySpec, weights: dict[str, Array]) -> None:  # noqa: ARG002
        self.units = self.features(spec)
        """Numbers that the output layer reads: the first of the memory."""

    @classmethod
    def features(cls, spec: PolicySpec) -> int:
        """Numbers that the output layer reads."""
        return spec.network.memory_size

    @classmethod  # noqa: B027
    def require_fit(cls, spec: PolicySpec) -> None:
        """Make sure that a policy's sizes, beside those of its network alone, are possible.

        Raises:
            UserError: they are not.
        """

    @classmethod
    @abstractmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight."""

    @abstractmethod
    def start(self, slots: int, target_returns: Array | None = None) -> Array:
        """The memory before the first step of ``slots`` episodes, [slots, M] float32.

        Args:
            slots: how many.
            target_returns: [slots] that they are flown for, of a core that acts for some; None: the policy's own.
        """

    @abstractmethod
    def step(self, x: Array, memory: Array) -> Array:
        """The memory after a step, [B, M] float32, of inputs [B, inputs] and the memory before, [B, M]."""

    def acted(self, memory: Array, actions: Any) -> Array:  # noqa: ARG002
        """The memory once actions, as the environment takes them, are chosen after ``step``."""
        return memory

    def rewarded(self, memory: Array, rewards: Array) -> Array:  # noqa: ARG002
        """The memory once the environment has answered with rewards, [B]."""
        return memory
