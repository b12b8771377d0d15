"""The network of a Stable-Baselines3 policy, from its weights and from what its data say in words, as one of ours."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from actors.episode import Array
from actors.errors import UserError
from actors.spec import ACTIVATIONS
from serve.hub.formats.sb3_names import IMPORTABLE

_OTHERS = {
    "q_net": "DQN",
    "quantile_net": "QR-DQN",
    "actor": "SAC, TD3 or DDPG",
    "lstm_actor": "RecurrentPPO",
    "features_extractor": "a policy with a network before its layers (CnnPolicy, MultiInputPolicy)",
    "pi_features_extractor": "a policy with a network before its layers (CnnPolicy, MultiInputPolicy)",
    "sde_features_extractor": "a policy whose gSDE has a network of its own (sde_net_arch)",
}
"""What the first part of a weight's name says of policies that ours cannot hold."""
_LAYER = re.compile(r"mlp_extractor\.(shared_net|policy_net|value_net)\.(\d+)\.(weight|bias)")
_HEAD = re.compile(r"(action_net|value_net)\.(weight|bias)|log_std")
_EXPLN_FLOOR = 1e-6


@dataclasses.dataclass(frozen=True)
class Network:
    """What a policy of ours is made of."""

    weights: dict[str, Array]
    """By the names that ours have."""
    layer_sizes: tuple[int, ...]
    """Units from input to output."""
    distribution: str
    """Over actions, as ours are called."""
    activation: str


def network_of(data: dict[str, Any], state: dict[str, Array], activation: str | None) -> Network:
    """The network that a file holds.

    Args:
        data: of the file.
        state: its weights.
        activation: None: what the data say.

    Raises:
        UserError: it is of a kind that ours cannot hold, or the file is damaged.
    """
    _refuse_other_kinds(data, state)
    layers = _layers(state)
    weights: dict[str, Array] = {}
    for i, (w, b) in enumerate(layers):
        weights |= {f"w{i}": w, f"b{i}": b}
    distribution = "categorical"
    if "log_std" in state:
        uses_sde = data.get("use_sde", False)
        distribution = "state_dependent_gaussian" if uses_sde else "gaussian"
        weights["log_std"] = _log_std_of_noise(data, state["log_std"], layers[-1][0]) if uses_sde else state["log_std"]
    sizes = (layers[0][0].shape[0], *(int(b.shape[0]) for _, b in layers))
    return Network(weights, sizes, distribution, activation or _activation(data))


def _refuse_other_kinds(data: dict[str, Any], state: dict[str, Array]) -> None:
    for name in state:
        if other := _OTHERS.get(name.partition(".")[0]):
            raise UserError(f"this is {other}; {IMPORTABLE}")
    for name in state:
        if not (_LAYER.fullmatch(name) or _HEAD.fullmatch(name)):
            raise UserError(f"unknown weight {name[:200]!r}; {IMPORTABLE}")
    space = _hint(data.get("action_space"), ":type:")
    if space in ("MultiDiscrete", "MultiBinary"):
        raise UserError(f"this policy has {space} actions; imported are Discrete and Box ones")
    if not isinstance(data.get("use_sde", False), bool):
        raise UserError(f"the file is damaged: its use_sde must be true or false, not {str(data['use_sde'])[:40]!r}")
    if _options(data).get("squash_output"):
        raise UserError("this policy squashes its actions by tanh (squash_output=True), which ours do not")


def _options(data: dict[str, Any]) -> dict[str, Any]:
    """What the policy was made with, where it is plain JSON or said in words beside the pickle."""
    options = data.get("policy_kwargs")
    return options if isinstance(options, dict) else {}


def _layers(state: dict[str, Array]) -> list[tuple[Array, Array]]:
    """Weights [in, out] and biases [out] from the observation to the action, torch's [out, in] turned round.

    Before version 1.8, layers shared with the critic could come first, as shared_net; the actor sees no difference.
    """
    names = []
    for net in ("shared_net", "policy_net"):
        indices = sorted(
            int(match[2])
            for name in state
            if (match := _LAYER.fullmatch(name)) and match[1] == net and match[3] == "weight"
        )
        names += [f"mlp_extractor.{net}.{i}" for i in indices]
    names.append("action_net")
    layers = []
    for name in names:
        w, b = state.get(f"{name}.weight"), state.get(f"{name}.bias")
        if w is None or b is None or w.ndim != 2 or b.ndim != 1:
            raise UserError(f"the file is damaged: {name} is no layer of a weight and a bias")
        layers.append((np.ascontiguousarray(w.T), b))
    return layers


def _log_std_of_noise(data: dict[str, Any], log_std: Array, last: Array) -> Array:
    """gSDE's log σ of each unit's noise on each action, [H, A], for a last layer of [H, A].

    A file may have one for all actions of a unit, [H, 1] (full_std=False), and it may stand for σ by expln(x), which
    is exp(x) up to 0 and 1 + log(1 + x) beyond (use_expln=True): ours are those that exp makes the same σ of.
    """
    if log_std.shape not in (last.shape, (last.shape[0], 1)):
        raise UserError(f"the file is damaged: its log_std is {log_std.shape}, {last.shape} is what gSDE needs")
    if _options(data).get("use_expln"):
        beyond = np.log(1 + np.log1p(np.maximum(log_std, 0) + np.float32(_EXPLN_FLOOR)))
        log_std = np.where(log_std > 0, beyond, log_std)
    return np.ascontiguousarray(np.broadcast_to(log_std, last.shape))


def _activation(data: dict[str, Any]) -> str:
    """From the text that Stable-Baselines3 writes beside the pickle, "<class 'torch.nn.modules.activation.ReLU'>"."""
    name = _hint(data.get("policy_kwargs"), "activation_fn")
    if name is None:
        return "tanh"
    if name.lower() not in ACTIVATIONS:
        raise UserError(f"this policy's activation is {name}; supported are {', '.join(ACTIVATIONS)}")
    return name.lower()


def _hint(entry: Any, key: str) -> str | None:
    """The class that an entry of ``data`` names in words: "<class 'package.Name'>" is Name."""
    words = entry.get(key) if isinstance(entry, dict) else None
    match = re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", words) if isinstance(words, str) else None
    return match[1] if match else None
