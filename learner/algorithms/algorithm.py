"""What every algorithm answers: its options, network, memory, targets and loss. Free of torch, for who only configures.

An algorithm is a frozen dataclass. Its fields are its options, on the command line and in configuration files; its
methods say how it learns, and keep nothing: what changes in training is the network's and the learner's.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from actors.distributions import distribution_for
from actors.errors import UserError
from actors.spaces import Space

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actors.spec import PolicySpec
    from actors.trees import Array, Tree
    from learner.memory.memory import Columns, Memory
    from learner.networks.config import Critic
    from learner.networks.torch_policy import TorchPolicy

    Metrics = dict[str, Tensor]
    """Numbers for the log, by their names in train/."""


class Experience(NamedTuple):
    """A batch on the learner's device: T steps of E segments, laid end to end."""

    observations: Tensor
    """[T, inputs] float32, as the networks take them: encoded, and standardised where the policy does so; of pictures
    [T, C, H, W] uint8, and of parts with pictures among them [T, k, R] uint8, see ``packing``."""
    final_observations: Tensor
    """[E, inputs]: the observation after each segment's last step."""
    encoded: Tensor
    """[T, inputs]: observations before they are standardised, for a memory that outlasts the statistics; see
    ``Algorithm.encode``. Where there are pictures they are ``Frames``, each held once."""
    final_encoded: Tensor
    """[E, inputs]: final_observations, likewise."""
    allows: Tensor | None
    """[T, actions] bool: what the action mask allows; None: there is none."""
    final_allows: Tensor | None
    """[E, actions] bool: what it allows after each segment's last step."""
    actions: Tensor
    """[T] or [T, A], as they were sampled."""
    rewards: Tensor
    """[T]: r_{t+1}, scaled."""
    notes: dict[str, Tensor]
    """[T] each: what the policy wrote down as it acted, log_prob say."""
    ends: Tensor
    """[E] int64: the last step of each segment."""
    terminated: Tensor
    """[E] float: 1 where the segment ended in a terminal state."""
    longest: int
    """Steps in the longest segment."""
    memory: Tensor | None = None
    """[E, M]: what the policy that flew remembered before each segment; None: it has no memory."""


@dataclasses.dataclass(frozen=True)
class Algorithm(ABC):
    """An algorithm and its options."""

    gamma: float = 0.999
    """Discount a step."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before anything is learned from them; logs show them unscaled."""
    batch_size: int | None = 512
    """Steps in a minibatch; None: the whole batch at once."""
    reward_clip: float = dataclasses.field(default=math.inf, kw_only=True)
    """Rewards beyond ± this are learned from as this, before they are scaled: 1 for Atari (Mnih et al. 2015)."""

    def __post_init__(self) -> None:
        require_between("gamma", self.gamma, 0, 1)
        require_positive("reward_scale", self.reward_scale)
        if not self.reward_clip > 0:
            raise UserError(f"reward_clip must be positive, or inf for none, not {self.reward_clip}")
        if self.batch_size is not None and self.batch_size < 2:
            raise UserError(f"batch_size must be 2 or more, or None for the whole batch, not {self.batch_size}")

    is_offline: ClassVar[bool] = False
    """Whether it learns from recordings, and flies nothing: see ``Offline``."""

    @property
    def most_lag(self) -> int | None:
        """Updates that a batch's policy may be behind the learner's; None: any number."""
        return 1

    @property
    def whole_episodes(self) -> str | None:
        """Why only whole episodes can be learned from, in words; None: fragments do too."""
        return None

    def distribution(self, action: Space) -> str:
        """The name of the distribution over such actions that it learns: see ``actors.distributions``.

        Raises:
            UserError: it cannot learn such actions.
        """
        return distribution_for(action)

    @property
    def learned_memories(self) -> frozenset[str]:
        """What it learns policies to remember with: values of ``NetworkConfig.memory``."""
        return frozenset({"none"})

    def require_fit(self, spec: PolicySpec) -> None:
        """Make sure that it can learn such a policy.

        Raises:
            UserError: it cannot; one line that says what would be right.
        """
        if spec.network.memory not in self.learned_memories:
            learner = "dt" if spec.network.memory == "transformer" else "policy gradients (presets ppo, a2c, impala, …)"
            raise UserError(
                f"memory {spec.network.memory} is for {learner}, and {type(self).__name__} learns without: memory must "
                f"be {' or '.join(sorted(self.learned_memories))}"
            )

    @property
    def idle_options(self) -> frozenset[str]:
        """Options that change nothing, as the others stand."""
        return frozenset()

    @abstractmethod
    def make_network(self, spec: PolicySpec, critic: Critic) -> TorchPolicy:
        """The policy's network with all else that is learned, weights drawn from torch's random numbers.

        Args:
            spec: of the policy.
            critic: what judges it.
        """

    @abstractmethod
    def make_memory(self, generator: torch.Generator) -> Memory:
        """An empty memory, which draws with these random numbers."""

    def encode(self, seen: Space, observations: Tree) -> Array:
        """What it knows of observations, [T, …]: what a network sees, [T, inputs], unless it says otherwise."""
        return seen.encode(observations)

    @abstractmethod
    def prepare(self, network: Any, flown: Experience) -> tuple[Columns, dict[str, float]]:
        """What goes into the memory of a batch, and metrics; called without autograd.

        Args:
            network: of ``make_network``.
            flown: the batch.

        Returns:
            Columns by name, [T, …] each, and numbers for the log by their names in train/.
        """

    @abstractmethod
    def loss(self, network: Any, steps: Columns) -> tuple[Tensor, Metrics] | tuple[Tensor, Metrics, Tensor]:
        """What a step of the optimiser descends, and tensors of one number each for the log.

        A third answer, [B], is what the memory is told of the steps: by how much each was wrong.

        It is recorded once and replayed (compiled.py). One that branches on the value of a tensor, or keeps something
        from minibatch to minibatch, is noticed and called for each minibatch instead, two to six times slower.

        Args:
            network: of ``make_network``.
            steps: B steps of the memory's columns, [B, …] each.
        """

    def is_enough(self, network: Any, steps: Columns, mean: Callable[[Tensor, int], Tensor]) -> bool:  # noqa: ARG002
        """Whether an update ends before the memory's next pass; called without autograd.

        Args:
            network: of ``make_network``.
            steps: this learner's part of the columns that ``prepare`` gave.
            mean: makes means over these steps, and how many they are, those over the steps of all learners.
        """
        return False

    def begin(self, network: Any, steps: int) -> None:  # noqa: B027
        """Set what follows a schedule, before each update and before the first policy; called without autograd.

        Args:
            network: of ``make_network``.
            steps: environment steps that were learned from before.
        """

    def follow(self, network: Any, gradient_steps: int) -> None:  # noqa: B027
        """Let a target network follow, say, after a step of the optimiser; called without autograd.

        Args:
            network: of ``make_network``.
            gradient_steps: steps of the optimiser so far.
        """


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Make sure that an option lies in a closed range.

    Raises:
        UserError: it does not.
    """
    if not low <= value <= high:
        raise UserError(f"{name} must lie between {low} and {high}, not {value}")


def require_positive(name: str, value: float) -> None:
    """Make sure that an option is above zero and finite.

    Raises:
        UserError: it is not.
    """
    if not 0 < value < math.inf:
        raise UserError(f"{name} must be positive, not {value}")


def require_count(name: str, value: int, least: int = 1, most: int = 10**9) -> None:
    """Make sure that an option is a number of things.

    Raises:
        UserError: it is less than the least, or more than the most.
    """
    if value < least:
        raise UserError(f"{name} must be {least} or more, not {value}")
    if value > most:
        raise UserError(f"{name} must be {most:,} at most, not {value:,}")


def require_weight(name: str, value: float) -> None:
    """Make sure that an option can weigh a term: zero or more, and finite.

    Raises:
        UserError: it cannot.
    """
    if not 0 <= value < math.inf:
        raise UserError(f"{name} must be zero or more, not {value}")
