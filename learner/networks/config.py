"""The options of the networks. Free of torch, for who only configures."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from actors.errors import UserError, unknown
from actors.layers import ACTIVATIONS
from actors.pictures import pictures_in
from actors.spaces import Space
from actors.spec import require_memory
from actors.trunks import AUTO, MLP, find_trunk


@dataclasses.dataclass(frozen=True)
class Critic:
    """What judges a policy, beside what the algorithm says of it."""

    sizes: tuple[int, ...] | None = None
    """Units of its hidden layers; None: as the policy's, or none where it shares these."""
    shares: bool = False
    """It sees the policy's last hidden layer, in place of observations."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The policy's network and the critic's."""

    network: str = AUTO
    """Convolutions that pictures go through before the hidden layers: mlp has none; small, nature, impala, or your own
    such as '32x8/4 64x4/2', or package.module:NAME of such a text. auto: nature for pictures of 64 pixels and more,
    small for smaller ones."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the policy."""
    critic_sizes: tuple[int, ...] | None = None
    """Units of each hidden layer of the critic; None: as the policy's, or none where it shares these."""
    share_trunk: bool | None = None
    """The critic judges what the policy's last hidden layer makes of observations, instead of the observations; None:
    where there are convolutions."""
    activation: str = "tanh"
    """tanh, relu or elu."""
    normalize_observations: bool = False
    """Standardise observations with running statistics, which travel with the policy; not those with pictures."""
    layer_norm: bool = False
    """Normalise each hidden layer, the critic's too, before its activation (Ba et al. 2016)."""
    memory: Literal["none", "gru", "lstm", "transformer"] = "none"
    """A core after the hidden layers, for what observations do not show: gru (Cho et al. 2014) or lstm (Hochreiter and
    Schmidhuber 1997), which the critic reads too and policy gradients learn with; transformer, which acts for a return
    that it is asked for, and which dt learns."""
    memory_size: int = 64
    """Units of the memory."""
    memory_layers: int = 2
    """Blocks of a transformer."""
    memory_heads: int = 4
    """Heads of each of its blocks."""
    memory_window: int = 30
    """Steps that a transformer attends to."""

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if any(size < 1 for size in (*self.hidden_sizes, *(self.critic_sizes or ()))):
            raise UserError(
                f"hidden_sizes and critic_sizes must be positive, not {self.hidden_sizes}, {self.critic_sizes}"
            )
        require_memory(self, self.hidden_sizes)

    def of_policy(self, observation: Space) -> dict[str, Any]:
        """The fields of a policy's own network, where such observations are seen.

        Raises:
            UserError: there is no such network, or it does not fit.
        """
        own = ["hidden_sizes", "activation", "layer_norm", "memory", "memory_size"]
        own += ["memory_layers", "memory_heads", "memory_window"]
        return {name: getattr(self, name) for name in own} | {
            "gpt2": None,
            "normalize_observations": self.normalize_observations and not any(pictures_in(observation)),
            "trunk": find_trunk(self.network, observation),
        }

    def with_policys(self, network: dict[str, Any]) -> NetworkConfig:
        """These options with the fields of a policy's own network.

        Raises:
            UserError: no algorithm learns such a one.
        """
        own = dict(network)
        if own.pop("gpt2"):
            raise UserError(
                "a policy imported from transformers is flown and served, and not trained further: memory gpt2"
            )
        return dataclasses.replace(self, network=own.pop("trunk") or MLP, **own)

    def critic(self, has_trunk: bool) -> Critic:
        """The critic beside a policy whose network has convolutions, or none."""
        return Critic(self.critic_sizes, has_trunk if self.share_trunk is None else self.share_trunk)
