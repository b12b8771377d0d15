"""GPT-2's blocks over an episode's last steps, in numpy: the Decision Transformer of the ``transformers`` library.

Chen et al. 2021 (arXiv:2106.01345) with three tokens a step, the return to come, the state and the action, which share
an embedding of the step's number (``DecisionTransformerModel`` of transformers 5.24). What a block makes of a step
changes as older steps leave the window, so that the whole window is computed at each step: nothing can be kept of it
but what the model was told. ``actors.transformer`` is the faster one, and the one that we train.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from actors.core import MOST_KEPT, Core
from actors.errors import UserError, unknown
from actors.layers import LAYER_NORM_EPS, normalized
from actors.transformer import NEVER, block_shapes, part
from actors.trees import Array

if TYPE_CHECKING:
    from actors.spec import PolicySpec

TOKENS = 3
"""The tokens of one step: the return to come, the state and the action."""
_MOST_INNER, _MOST_STEPS, _MOST_SCORES = 2**16, 2**20, 2**22
_MOST_COUNTED = 2**24
"""Steps that a row of float32 can count."""


def _erf(x: Array) -> Array:
    """The error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    sums: Array = np.float32(1.061405429) * np.ones_like(t)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        sums = sums * t + np.float32(factor)
    return np.asarray(np.sign(x) * (1 - sums * t * np.exp(-x * x)))


def _tanh_gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3))))


GPT2_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * (0.5 * np.tanh(0.5 * x) + 0.5),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x * np.float32(math.sqrt(0.5)))),
    "tanh": np.tanh,
    "gelu_new": _tanh_gelu,
}
"""Those that ``DecisionTransformerConfig`` names, by its names."""


@dataclasses.dataclass(frozen=True)
class GPT2:
    """What else shapes such a network, by the names of ``DecisionTransformerConfig``.

    Raises:
        UserError: a value that none can have.
    """

    n_inner: int
    """Units of each block's hidden layer."""
    max_ep_len: int
    """Steps that have an embedding; later ones have that of the last."""
    activation_function: str = "relu"
    """A name in GPT2_ACTIVATIONS."""
    layer_norm_epsilon: float = LAYER_NORM_EPS
    """Added to variances in the blocks and after them; in the tokens it is always 1e-5."""
    action_tanh: bool = True
    """Actions are tanh of the last layer."""

    def __post_init__(self) -> None:
        for name, most in (("n_inner", _MOST_INNER), ("max_ep_len", _MOST_STEPS)):
            if not 0 < getattr(self, name) <= most:
                raise UserError(f"{name} must lie between 1 and {most}, not {getattr(self, name)}")
        if self.activation_function not in GPT2_ACTIVATIONS:
            raise unknown("activation_function", self.activation_function, GPT2_ACTIVATIONS)
        if not 0 < self.layer_norm_epsilon < 1:
            raise UserError(f"layer_norm_epsilon must lie between 0 and 1, not {self.layer_norm_epsilon}")


class GPT2Core(Core):
    """Reads standardised observations, and gives the actions themselves.

    What is remembered, in a row: the last action as the model gave it, which the output layer reads, the return that is
    still to come, the steps so far, and of each of the last ``memory_window`` steps the return, state and action that
    the model was told, the newest last. ``step`` writes over it.
    """

    is_stored = False
    acts_for_return = reads_observations = True
    unlearned = frozenset({"core_return_std"})

    def __init__(self, spec: PolicySpec, weights: dict[str, Array]) -> None:
        super().__init__(spec, weights)
        network = spec.network
        assert spec.target_return is not None
        assert network.gpt2 is not None
        self._target, self._shape = spec.target_return, network.gpt2
        self._activation = GPT2_ACTIVATIONS[self._shape.activation_function]
        self._width, self._heads, self._window = network.memory_size, network.memory_heads, network.memory_window
        self._blocks = [part(weights, f"core_{i}_") for i in range(network.memory_layers)]
        self._weights = part(weights, "core_")
        self._return, self._steps = self.units, self.units + 1
        self._states, self._told = spec.seen.inputs, _told(spec)

    @classmethod
    def features(cls, spec: PolicySpec) -> int:
        """The numbers of an action."""
        return spec.action.inputs

    @classmethod
    def require_fit(cls, spec: PolicySpec) -> None:
        """Make sure that its memory, and what a step of it computes, have a sensible size.

        Raises:
            UserError: they do not, or observations are not standardised.
        """
        network = spec.network
        if not network.normalize_observations:
            raise UserError(
                "memory gpt2 reads observations as they are standardised: normalize_observations must be true"
            )
        kept, scores = network.memory_window * _told(spec), network.memory_heads * (TOKENS * network.memory_window) ** 2
        for what, size, most in (
            (f"memory_window × {_told(spec)} numbers of a step", kept, MOST_KEPT),
            (f"memory_heads × ({TOKENS} · memory_window)² scores", scores, _MOST_SCORES),
        ):
            if size > most:
                raise UserError(f"{what} are {size:,}, more than {most:,}: memory_window must be smaller")

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight: those of tokens, of each block, and of the actions after them.

        ``core_shift`` of the tokens holds GPT-2's own embedding of the first position too, which all tokens have here.
        """
        network, units = spec.network, spec.network.memory_size
        assert network.gpt2 is not None
        shapes: dict[str, tuple[int, ...]] = {
            "core_return_std": (1,),
            "core_return_w": (1, units),
            "core_return_b": (units,),
            "core_state_w": (spec.seen.inputs, units),
            "core_state_b": (units,),
            "core_action_w": (spec.action.inputs, units),
            "core_action_b": (units,),
            "core_time": (network.gpt2.max_ep_len, units),
            "core_token_scale": (units,),
            "core_token_shift": (units,),
        }
        for i in range(network.memory_layers):
            shapes |= block_shapes(i, units, network.gpt2.n_inner)
        head = {"core_head_w": (units, spec.action.inputs), "core_head_b": (spec.action.inputs,)}
        return shapes | {"core_scale": (units,), "core_shift": (units,)} | head

    def start(self, slots: int, target_returns: Array | None = None) -> Array:
        """Nothing told yet, and the return that is asked for still to come."""
        memory = np.zeros((slots, self._steps + 1 + self._window * self._told), np.float32)
        memory[:, self._return] = self._target if target_returns is None else target_returns
        return memory

    def step(self, x: Array, memory: Array) -> Array:
        """The same memory, told of a state more, with the action for it in front."""
        window = memory[:, self._steps + 1 :].reshape(len(x), self._window, self._told)
        window[:, :-1] = window[:, 1:]
        window[:, -1] = 0  # of the action, which is not known yet
        if self._window > 1:
            window[:, -2, 1 + self._states :] = memory[:, : self.units]
        window[:, -1, 0] = memory[:, self._return]
        window[:, -1, 1 : 1 + self._states] = x
        steps = np.clip(memory[:, self._steps], 0, _MOST_COUNTED).astype(np.int64)
        seen = min(self._window, int(steps.max(initial=0)) + 1)
        hidden = self._attend(window[:, -seen:], steps)
        actions = hidden @ self._weights["head_w"] + self._weights["head_b"]
        memory[:, : self.units] = np.tanh(actions) if self._shape.action_tanh else actions
        memory[:, self._steps] += 1
        return memory

    def rewarded(self, memory: Array, rewards: Array) -> Array:
        """The memory with the return to come less what was given, [B]."""
        memory[:, self._return] -= rewards
        return memory

    def _attend(self, told: Array, steps: Array) -> Array:
        """What the blocks make of the newest state: the last n steps as the model is told of them, [B, n, 1 + S + A],
        and how many came before the newest, [B] -> [B, units]."""
        count, seen, width, epsilon = len(told), told.shape[1], self._width, self._shape.layer_norm_epsilon
        ages = np.arange(seen)[::-1]
        x = self._tokens(told, steps[:, None] - ages)
        tokens = x.shape[1]
        bias = np.triu(np.full((tokens, tokens), NEVER), 1)[None]  # nothing attends to what comes after it
        there = ages <= steps[:, None]
        if not there.all():
            bias = bias + np.where(np.repeat(there, TOKENS, axis=1)[:, None, :tokens], np.float32(0), NEVER)
        x = x.reshape(-1, width)
        for block in self._blocks:
            normal = rows = normalized(x, block["attend_scale"], block["attend_shift"], epsilon)
            if block is self._blocks[-1]:  # from here on, only of the newest state
                x, rows = (all_rows.reshape(count, tokens, width)[:, -1] for all_rows in (x, rows))
            w, b = block["heads_w"], block["heads_b"]
            queries = self._by_head((rows @ w[:, :width] + b[:width]).reshape(count, -1, width))
            both = (normal @ w[:, width:] + b[width:]).reshape(count, tokens, 2, width)
            keys, values = self._by_head(both[:, :, 0]), self._by_head(both[:, :, 1])
            scores = (queries * np.float32(queries.shape[-1] ** -0.5)) @ keys.swapaxes(-1, -2)
            scores += bias[:, None, -scores.shape[2] :]
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            attended = (scores @ values).transpose(0, 2, 1, 3).reshape(-1, width)
            x = x + (attended @ block["joined_w"] + block["joined_b"])
            normal = normalized(x, block["feed_scale"], block["feed_shift"], epsilon)
            x = x + self._activation(normal @ block["wide_w"] + block["wide_b"]) @ block["narrow_w"] + block["narrow_b"]
        return normalized(x, self._weights["scale"], self._weights["shift"], epsilon)

    def _tokens(self, told: Array, numbers: Array) -> Array:
        """Tokens in their order, [B, 3n − 1, units], without that of the newest action: of what is told of n steps,
        [B, n, 1 + S + A], and the steps' numbers, [B, n], which are below 0 where there is none."""
        w = self._weights
        count, seen, numbers_told = told.shape
        flat = told.reshape(-1, numbers_told)
        time = w["time"][np.clip(numbers, 0, len(w["time"]) - 1)]
        tokens = np.empty((count, seen, TOKENS, self._width), np.float32)
        kinds = (flat[:, :1] / w["return_std"], flat[:, 1 : 1 + self._states], flat[:, 1 + self._states :])
        for i, (kind, name) in enumerate(zip(kinds, ("return", "state", "action"), strict=True)):
            tokens[:, :, i] = (kind @ w[f"{name}_w"] + w[f"{name}_b"]).reshape(count, seen, -1) + time
        flat = normalized(tokens.reshape(-1, self._width), w["token_scale"], w["token_shift"])
        return flat.reshape(count, TOKENS * seen, self._width)[:, :-1]

    def _by_head(self, x: Array) -> Array:
        """[B, T, units] -> [B, heads, T, units / heads]."""
        return x.reshape(*x.shape[:2], self._heads, -1).transpose(0, 2, 1, 3)


def _told(spec: PolicySpec) -> int:
    """Numbers that the model is told of a step: the return to come, the state, the action."""
    return 1 + spec.seen.inputs + spec.action.inputs
