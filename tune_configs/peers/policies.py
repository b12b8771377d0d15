"""A peer's network as a policy of ours, so that it is evaluated as every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.environments import describe
from actors.episode import Array
from actors.policy import Policy


def policy_from_layers(
    env_id: str,
    state: Mapping[str, Any],
    layers: Sequence[str],
    activation: str,
    distribution: str | None = None,
    **weights: Array,
) -> Policy:
    """The policy whose network is a row of linear layers.

    Args:
        env_id: what it flies.
        state: a torch state dict, in numpy: each layer's weight is [out, in].
        layers: the names of the layers in it.
        activation: between the layers.
        distribution: what their outputs are the parameters of; None: the first that there is for the actions.
        weights: of the distribution.
    """
    hidden_sizes = tuple(len(state[f"{layer}.bias"]) for layer in layers[:-1])
    spec = describe(env_id).policy_spec(distribution=distribution, hidden_sizes=hidden_sizes, activation=activation)
    for i, layer in enumerate(layers):
        weights[f"w{i}"] = state[f"{layer}.weight"].T.copy()
        weights[f"b{i}"] = state[f"{layer}.bias"].copy()
    return Policy(spec, weights)
