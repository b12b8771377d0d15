"""Causal attention over an episode's last steps, in numpy, for a return that is asked for: the Decision Transformer.

Chen et al. 2021 (arXiv:2106.01345), with one token a step, the sum of what is seen, the action before and the return
that is still to come, and no positions but a bias by the age of keys (ALiBi, Press et al. 2022, arXiv:2108.12409). Keys
and values are kept in a ring, so that a step computes one token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.core import Core
from actors.errors import UserError
from actors.layers import normalized
from actors.parts import Parts
from actors.trees import Array

if TYPE_CHECKING:
    from actors.spec import PolicySpec

WIDER = 4
"""Units of a block's hidden layer, as a multiple of what it reads (Vaswani et al. 2017)."""
_MOST_STEPS = 2**24
"""The whole numbers that a float32 counts to."""
NEVER = np.float32(-1e30)
"""Added to the score of a key that is not there."""


class Transformer(Core):
    """Pre-normalised blocks of attention and a hidden layer, on tokens of ``memory_size`` numbers.

    What is remembered, in a row: what the output layer reads, the return that is still to come, the steps so far, the
    last action as a network sees it, and ``memory_window`` keys and values of each block. ``step`` writes over it.
    """

    is_stored = False
    acts_for_return = True
    unlearned = frozenset({"core_return_mean", "core_return_std"})

    def __init__(self, spec: PolicySpec, weights: dict[str, Array]) -> None:
        super().__init__(spec, weights)
        network = spec.network
        assert spec.target_return is not None
        self._target, self._encode = spec.target_return, spec.action.encode
        self._heads, self._window = network.memory_heads, network.memory_window
        self._blocks = [part(weights, f"core_{i}_") for i in range(network.memory_layers)]
        self._weights = part(weights, "core_")
        self._return, self._steps = self.units, self.units + 1
        self._action = slice(self.units + 2, self.units + 2 + spec.action.inputs)
        self._numbers = self._action.stop + network.memory_layers * 2 * self._window * self.units
        self._bias = alibi(self._heads, self._window)

    @classmethod
    def require_fit(cls, spec: PolicySpec) -> None:
        """Make sure that its actions have no parts.

        Raises:
            UserError: they have some.
        """
        if isinstance(spec.action, Parts):
            raise UserError(
                "a transformer remembers actions without parts: a policy of these has another memory, or none"
            )

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight: those of the token, of each block, and of the last normalisation."""
        units = spec.network.memory_size
        shapes: dict[str, tuple[int, ...]] = {
            "core_token_w": (spec.network.hidden_sizes[-1], units),
            "core_token_b": (units,),
            "core_action_w": (spec.action.inputs, units),
            "core_return_w": (units,),
            "core_return_mean": (1,),
            "core_return_std": (1,),
        }
        for i in range(spec.network.memory_layers):
            shapes |= block_shapes(i, units, WIDER * units)
        return shapes | {"core_scale": (units,), "core_shift": (units,)}

    def start(self, slots: int, target_returns: Array | None = None) -> Array:
        """Nothing seen yet, and the return that is asked for still to come."""
        memory = np.zeros((slots, self._numbers), np.float32)
        memory[:, self._return] = self._target if target_returns is None else target_returns
        return memory

    def step(self, x: Array, memory: Array) -> Array:
        """The same memory, with a token more."""
        count, units, heads = len(x), self.units, self._heads
        w, rows = self._weights, np.arange(len(x))
        steps = np.clip(memory[:, self._steps], 0, _MOST_STEPS).astype(np.int64)  # a request may hold any number
        place = steps % self._window
        blocks = (count, len(self._blocks), 2, self._window, units)
        remembered = memory[:, self._action.stop :].reshape(blocks)
        bias = self._bias[np.minimum(steps, self._window + place)]  # from then on the ring is full
        to_come = (memory[:, self._return] - w["return_mean"]) / w["return_std"]
        x = x @ w["token_w"] + memory[:, self._action] @ w["action_w"] + to_come[:, None] * w["return_w"] + w["token_b"]
        for i, block in enumerate(self._blocks):
            normal = normalized(x, block["attend_scale"], block["attend_shift"])
            both = (normal @ block["heads_w"] + block["heads_b"]).reshape(count, 3, units)
            remembered[rows, i, :, place] = both[:, 1:]
            keys, values = remembered[:, i].reshape(count, 2, self._window, heads, -1).transpose(1, 0, 3, 2, 4)
            query = both[:, 0].reshape(count, heads, -1, 1)
            scores = (keys @ query)[..., 0] * np.float32(query.shape[2] ** -0.5) + bias
            scores = np.exp(scores - scores.max(axis=2, keepdims=True))
            scores /= scores.sum(axis=2, keepdims=True)
            attended = (scores[:, :, None] @ values).reshape(count, units)
            x = x + attended @ block["joined_w"] + block["joined_b"]
            normal = normalized(x, block["feed_scale"], block["feed_shift"])
            x = x + np.maximum(normal @ block["wide_w"] + block["wide_b"], 0) @ block["narrow_w"] + block["narrow_b"]
        memory[:, :units] = normalized(x, w["scale"], w["shift"])
        memory[:, self._steps] += 1
        return memory

    def acted(self, memory: Array, actions: Any) -> Array:
        """The memory with the action that was taken, as the environment takes it, which the next token tells of."""
        memory[:, self._action] = self._encode(actions)
        return memory

    def rewarded(self, memory: Array, rewards: Array) -> Array:
        """The memory with the return to come less what was given, [B]."""
        memory[:, self._return] -= rewards
        return memory


def alibi(heads: int, window: int) -> Array:
    """What is added to the scores of a ring of keys, [2 · window, heads, window] float32, by the steps before this one.

    A key's score falls on a line with its age, of slope 2^(−8 h / heads) for head h = 1, 2, …. After ``window`` steps
    the ring is full, and what is added repeats itself: rows from there are of full rings.
    """
    steps = np.arange(2 * window)[:, None]
    ages = (steps - np.arange(window)) % window
    slopes = 2.0 ** (-8 * np.arange(1, heads + 1) / heads)
    bias = np.where((ages <= steps)[:, None], -slopes[:, None] * ages[:, None], NEVER)
    return bias.astype(np.float32)


def block_shapes(i: int, units: int, wide: int) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight of block i, pre-normalised attention and then a layer of ``wide`` units."""
    block: dict[str, tuple[int, ...]] = {
        "attend_scale": (units,),
        "attend_shift": (units,),
        "heads_w": (units, 3 * units),
        "heads_b": (3 * units,),
        "joined_w": (units, units),
        "joined_b": (units,),
        "feed_scale": (units,),
        "feed_shift": (units,),
        "wide_w": (units, wide),
        "wide_b": (wide,),
        "narrow_w": (wide, units),
        "narrow_b": (units,),
    }
    return {f"core_{i}_{name}": shape for name, shape in block.items()}


def part(weights: dict[str, Array], prefix: str) -> dict[str, Array]:
    """Weights whose names have a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
