"""What every action distribution is, in numpy: what an actor needs to act, and to say how likely an action was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.episode import Array
from actors.spaces import Space
from actors.trees import Tree

if TYPE_CHECKING:
    from actors.spec import PolicySpec


class Distribution(ABC):
    """A family of distributions over actions; ``parameters`` are the policy network's outputs, [B, A].

    Where it ``sees_hidden``, they are what it makes of these and of the network's last hidden layer: [B, P].
    """

    space: type[Space]
    """What actions it is for."""
    labels: list[str]
    """What each of the A numbers is of, for a person."""
    unlearned: frozenset[str] = frozenset()
    """Those of its weights that no gradient changes."""
    sees_hidden = False
    """Whether its parameters are those of ``complete``. The network has a hidden layer then."""

    @classmethod
    @abstractmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Distribution:
        """That of a policy.

        Raises:
            NonFiniteError: a weight of it stands for an infinity.
        """

    @classmethod
    def size(cls, spec: PolicySpec) -> int:
        """A, the numbers that a policy's network has to give."""
        return spec.action.inputs

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:  # noqa: ARG003
        """The shapes of its own weights, by name, beside the network's; it has none unless it says so."""
        return {}

    def complete(self, outputs: Array, hidden: Array) -> Array:  # noqa: ARG002
        """Its parameters, [B, P], of the network's outputs, [B, A], and its last hidden layer, [B, H], activated."""
        return outputs

    @abstractmethod
    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Noise for ``shape`` samples: [*shape, A] float32."""

    @abstractmethod
    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """One action a row: a ~ π(· | o); the most likely one where there is no noise, or all of it is 0."""

    @abstractmethod
    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """log π(a | o) of actions as they were sampled: [B] float32."""

    def notes(self, parameters: Array, actions: Array) -> dict[str, Array]:
        """What a learner has to know later of how actions were chosen, by name: [B, …] each."""
        return {"log_prob": self.log_prob(parameters, actions)}

    def flyable(self, actions: Array) -> Any:
        """Actions as the environment takes them, [B, *act] or a tree of these, of actions as they were sampled."""
        return actions

    def as_sampled(self, actions: Any) -> Array:
        """Actions as they would have been sampled, of actions as the environment takes them: see ``flyable``."""
        return np.asarray(actions)

    def can_act(self, allows: Array) -> Array:
        """Which rows of a mask [B, A] leave an action: [B] bool."""
        return np.asarray(allows.any(axis=1))

    def chosen(self, action: Array) -> list[int]:  # noqa: ARG002
        """Which of the A numbers one action, as it was sampled, picks; of continuous ones none."""
        return []

    @abstractmethod
    def shown(self, parameters: Array) -> Mapping[str, Tree]:
        """What a person may see of it, by name, a row for each: what ``/act`` answers beside the action."""

    @property
    def shown_once(self) -> Mapping[str, Tree]:
        """What else a person may see, which no observation changes."""
        return {}
