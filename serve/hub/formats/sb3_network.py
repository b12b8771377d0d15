"""The network of a Stable-Baselines3 policy, from its weights and from what its data say in words, as one of ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from actors.episode import Array
from actors.errors import UserError
from actors.gaussians import LOG_STD_RANGE
from actors.layers import ACTIVATIONS
from serve.hub.formats.sb3_names import IMPORTABLE

Layer = tuple[Array, Array]
"""Weights [in, out] and biases [out]."""

_OTHERS = {
    "lstm_actor": "RecurrentPPO",
    "features_extractor": "a policy with a network before its layers (CnnPolicy, MultiInputPolicy)",
    "pi_features_extractor": "a policy with a network before its layers (CnnPolicy, MultiInputPolicy)",
    "sde_features_extractor": "a policy whose gSDE has a network of its own (sde_net_arch)",
}
"""What the first part of a weight's name says of policies that ours cannot hold; of those that act by value, or have
an actor apart from their critics, the second."""
_PARTS = re.compile(r"^(?:q_net|quantile_net|actor)\.")
_NOT_ACTING = re.compile(
    r"(?:mlp_extractor\.value_net|value_net|q_net_target|quantile_net_target|actor_target|critic|critic_target)\..*"
)
"""Weights that only learning needs."""
_EXPLN_FLOOR = 1e-6
_CLIP_MEAN = 2.0
"""Where SAC clips gSDE's means if it is not told."""
_SATURATED = 20
"""From here on tanh is 1, and it makes no difference where means are clipped."""


@dataclasses.dataclass(frozen=True)
class Network:
    """What a policy of ours is made of."""

    layers: list[Layer]
    """From input to output."""
    activation: str
    distribution: str
    """Over actions, as ours are called."""
    others: dict[str, Array] = dataclasses.field(default_factory=dict)
    """Weights of the distribution, by the names that ours have."""
    scale_actions: bool = False
    """Whether actions are scaled from [-1, 1] to their bounds, or clipped at these."""

    @property
    def weights(self) -> dict[str, Array]:
        """All of them, by the names that ours have."""
        weights = dict(self.others)
        for i, (w, b) in enumerate(self.layers):
            weights |= {f"w{i}": w, f"b{i}": b}
        return weights

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Units from input to output."""
        return (self.layers[0][0].shape[0], *(int(b.size) for _, b in self.layers))


@dataclasses.dataclass(frozen=True)
class _File:
    """What a file holds, of which it is noted what was read."""

    data: dict[str, Any]
    state: dict[str, Array]
    activation: str
    taken: set[str] = dataclasses.field(default_factory=set)
    """Names of weights."""

    @property
    def options(self) -> dict[str, Any]:
        """What the policy was made with, where it is plain JSON or said in words beside the pickle."""
        options = self.data.get("policy_kwargs")
        return options if isinstance(options, dict) else {}

    def take(self, name: str) -> Array | None:
        """A weight, if there is one of that name."""
        self.taken.add(name)
        return self.state.get(name)

    def layer(self, name: str) -> Layer:
        """A layer by its name, torch's [out, in] turned round."""
        w, b = (self.take(f"{name}.{kind}") for kind in ("weight", "bias"))
        if w is None or b is None or w.ndim != 2 or w.shape[:1] != b.shape:
            raise UserError(f"the file is damaged: {name} is no layer of a weight and a bias")
        return np.ascontiguousarray(w.T), b

    def layers(self, name: str, least: int = 1) -> list[Layer]:
        """Those of a torch Sequential, in which activations are counted too."""
        found = (re.fullmatch(rf"{re.escape(name)}\.(\d{{1,4}})\.weight", weight) for weight in self.state)
        indices = sorted(int(match[1]) for match in found if match)
        return [self.layer(f"{name}.{i}") for i in indices or range(least)]


def network_of(algorithm: str, data: dict[str, Any], state: dict[str, Array], activation: str | None) -> Network:
    """The network that a file holds.

    Args:
        algorithm: that saved it, as ``algorithm_of`` calls it.
        data: of the file.
        state: its weights.
        activation: None: what the data say, or else what the algorithm's policies have.

    Raises:
        UserError: it is of a kind that ours cannot hold, or the file is damaged.
    """
    _refuse_other_kinds(data, state)
    read = _READERS[algorithm]
    usual = "tanh" if read is _actor_critic else "relu"
    file = _File(data, state, activation or _activation(data) or usual)
    network = read(file)
    for name in state:
        if not (name in file.taken or _NOT_ACTING.fullmatch(name)):
            raise UserError(f"unknown weight {name[:200]!r}; {IMPORTABLE}")
    return network


def _refuse_other_kinds(data: dict[str, Any], state: dict[str, Array]) -> None:
    for name in state:
        if other := _OTHERS.get(_PARTS.sub("", name, count=1).partition(".")[0]):
            raise UserError(f"this is {other}; {IMPORTABLE}")
    space = _hint(data.get("action_space"), ":type:")
    if space in ("MultiDiscrete", "MultiBinary"):
        raise UserError(f"this policy has {space} actions; imported are Discrete and Box ones")
    if not isinstance(data.get("use_sde", False), bool):
        raise UserError(f"the file is damaged: its use_sde must be true or false, not {str(data['use_sde'])[:40]!r}")


def _actor_critic(file: _File) -> Network:
    """PPO's, A2C's and TRPO's.

    Before version 1.8, layers shared with the critic could come first, as shared_net; the actor sees no difference.
    """
    if file.options.get("squash_output"):
        raise UserError(
            "this policy squashes gSDE's actions by tanh (squash_output=True), which is imported of SAC alone"
        )
    layers = [layer for net in ("shared_net", "policy_net") for layer in file.layers(f"mlp_extractor.{net}", 0)]
    layers.append(file.layer("action_net"))
    log_std = file.take("log_std")
    if log_std is None:
        return Network(layers, file.activation, "categorical")
    if not file.data.get("use_sde"):
        return Network(layers, file.activation, "gaussian", {"log_std": log_std})
    noise = {"log_std": _log_std_of_noise(file, log_std, layers[-1][0])}
    return Network(layers, file.activation, "state_dependent_gaussian", noise)


def _log_std_of_noise(file: _File, log_std: Array, last: Array) -> Array:
    """gSDE's log σ of each unit's noise on each action, [H, A], for a last layer of [H, A].

    A file may have one for all actions of a unit, [H, 1] (full_std=False), and it may stand for σ by expln(x), which
    is exp(x) up to 0 and 1 + log(1 + x) beyond (use_expln=True): ours are those that exp makes the same σ of.
    """
    if log_std.shape not in (last.shape, (last.shape[0], 1)):
        raise UserError(f"the file is damaged: its log_std is {log_std.shape}, {last.shape} is what gSDE needs")
    if file.options.get("use_expln"):
        beyond = np.log(1 + np.log1p(np.maximum(log_std, 0) + np.float32(_EXPLN_FLOOR)))
        log_std = np.where(log_std > 0, beyond, log_std)
    return np.ascontiguousarray(np.broadcast_to(log_std, last.shape))


def _q_network(file: _File) -> Network:
    """DQN's, which gives q-values."""
    return Network(file.layers("q_net.q_net"), file.activation, "epsilon_greedy", _epsilon(file))


def _quantile_network(file: _File) -> Network:
    """QR-DQN's, which gives N quantiles of each action's return, [N, A] in one row.

    Q-values are their means, which are linear: they are taken in the last layer.
    """
    *layers, last = file.layers("quantile_net.quantile_net")
    count, outputs = file.data.get("n_quantiles"), last[1].size
    if type(count) is not int or count < 1 or outputs % count:
        raise UserError(f"the file is damaged: {outputs} outputs cannot be {str(count)[:40]} quantiles of each action")
    w, b = (x.reshape(*x.shape[:-1], count, -1).mean(axis=-2, dtype=np.float64).astype(np.float32) for x in last)
    return Network([*layers, (w, b)], file.activation, "epsilon_greedy", _epsilon(file))


def _epsilon(file: _File) -> dict[str, Array]:
    """The share of actions that it last took at random."""
    share: Any = file.data.get("exploration_rate", file.data.get("exploration_final_eps"))
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise UserError(f"the file is damaged: its exploration_rate must lie from 0 to 1, not be {str(share)[:40]!r}")
    return {"epsilon": np.array([share], np.float32)}


def _soft_actor(file: _File) -> Network:
    """SAC's, whose last layer is of μ and log σ."""
    layers = file.layers("actor.latent_pi", 0)
    if file.take("actor.log_std") is not None:
        return _squashed(file, [*layers, *_without_noise(_means_of_gsde(file))])
    (w, b), (w_std, b_std) = file.layer("actor.mu"), file.layer("actor.log_std")
    if w.shape != w_std.shape:
        raise UserError(f"the file is damaged: its actor.mu is {w.shape}, and its actor.log_std {w_std.shape}")
    return _squashed(file, [*layers, (np.concatenate([w, w_std], axis=1), np.append(b, b_std))])


def _means_of_gsde(file: _File) -> list[Layer]:
    """The layers that give the means of SAC with gSDE, which it clips to ±c unless its clip_mean c is 0.

    A layer of relu does so: clip(μ, -c, c) = max(μ + c, 0) - max(μ - c, 0) - c.
    """
    if "actor.mu.weight" in file.state:
        return [file.layer("actor.mu")]
    limit = file.options.get("clip_mean", _CLIP_MEAN)
    if type(limit) not in (int, float) or not limit > 0:
        raise UserError(f"the file is damaged: its clip_mean must be positive, not {str(limit)[:40]!r}")
    if file.activation != "relu":
        raise UserError(
            f"this is SAC with gSDE and {file.activation}; its means are clipped, which ours are with relu only"
        )
    (w, b), c = file.layer("actor.mu.0"), np.float32(min(limit, _SATURATED))
    one = np.eye(b.size, dtype=np.float32)
    return [
        (np.concatenate([w, w], axis=1), np.append(b + c, b - c)),
        (np.concatenate([one, -one]), np.full_like(b, -c)),
    ]


def _deterministic_actor(file: _File) -> Network:
    """TD3's and DDPG's."""
    return _squashed(file, _without_noise(file.layers("actor.mu")))


def _without_noise(layers: list[Layer]) -> list[Layer]:
    """Layers that give means as these do, and with them the smallest log σ that there is.

    TD3's noise is no part of its policy. SAC's gSDE has a σ that no layer gives. What was learned is the means.
    """
    *layers, (w, b) = layers
    return [*layers, (np.concatenate([w, np.zeros_like(w)], axis=1), np.append(b, np.full_like(b, LOG_STD_RANGE[0])))]


def _squashed(file: _File, layers: list[Layer]) -> Network:
    return Network(layers, file.activation, "squashed_gaussian", scale_actions=True)


_READERS: dict[str, Callable[[_File], Network]] = {
    **dict.fromkeys(("PPO", "A2C", "TRPO"), _actor_critic),
    "DQN": _q_network,
    "QR-DQN": _quantile_network,
    "SAC": _soft_actor,
    **dict.fromkeys(("TD3", "DDPG"), _deterministic_actor),
}
"""Each algorithm's policy."""


def _activation(data: dict[str, Any]) -> str | None:
    """From the text that Stable-Baselines3 writes beside the pickle, "<class 'torch.nn.modules.activation.ReLU'>"."""
    name = _hint(data.get("policy_kwargs"), "activation_fn")
    if name is not None and name.lower() not in ACTIVATIONS:
        raise UserError(f"this policy's activation is {name}; supported are {', '.join(ACTIVATIONS)}")
    return name and name.lower()


def _hint(entry: Any, key: str) -> str | None:
    """The class that an entry of ``data`` names in words: "<class 'package.Name'>" is Name."""
    words = entry.get(key) if isinstance(entry, dict) else None
    match = re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", words) if isinstance(words, str) else None
    return match[1] if match else None
