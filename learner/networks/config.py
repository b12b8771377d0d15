"""The options of the networks. Free of torch, for who only configures."""

from __future__ import annotations

import dataclasses
from typing import Literal

from actors.errors import UserError, unknown
from actors.spec import ACTIVATIONS, require_memory


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The policy's network and the critic's."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the policy."""
    critic_sizes: tuple[int, ...] | None = None
    """Units of each hidden layer of the critic; None: as the policy's."""
    activation: str = "tanh"
    """tanh, relu or elu."""
    normalize_observations: bool = False
    """Standardise observations with running statistics, which travel with the policy."""
    layer_norm: bool = False
    """Normalise each hidden layer, the critic's too, before its activation (Ba et al. 2016)."""
    memory: Literal["none", "gru", "lstm"] = "none"
    """A recurrent core after the hidden layers, for what observations do not show: gru (Cho et al. 2014) or lstm
    (Hochreiter and Schmidhuber 1997). The critic reads it too. Policy gradients learn with it."""
    memory_size: int = 64
    """Units of the memory."""

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if any(size < 1 for size in (*self.hidden_sizes, *(self.critic_sizes or ()))):
            raise UserError(
                f"hidden_sizes and critic_sizes must be positive, not {self.hidden_sizes}, {self.critic_sizes}"
            )
        require_memory(self.memory, self.memory_size, self.hidden_sizes)
