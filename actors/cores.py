"""Recurrent cores, in numpy, by the equations of PyTorch's cells; and all cores by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actors.core import CORE, Core
from actors.gpt2 import GPT2Core
from actors.transformer import Transformer
from actors.trees import Array

if TYPE_CHECKING:
    from actors.spec import PolicySpec

__all__ = ["CORE", "CORES", "Core"]


class Recurrent(Core):
    """Gates that read the input and what was given before, and start from zeros."""

    gates: int
    """Sums that each unit takes of the input and of what it gave before."""
    states: int
    """Numbers that each unit remembers."""

    def __init__(self, spec: PolicySpec, weights: dict[str, Array]) -> None:
        super().__init__(spec, weights)
        self._input_w, self._hidden_w = weights["core_input_w"], weights["core_hidden_w"]
        self._input_b, self._hidden_b = weights["core_input_b"], weights["core_hidden_b"]

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight; gates stand side by side, in PyTorch's order."""
        units = spec.network.memory_size
        sums = cls.gates * units
        return {
            "core_input_w": (spec.network.hidden_sizes[-1], sums),
            "core_input_b": (sums,),
            "core_hidden_w": (units, sums),
            "core_hidden_b": (sums,),
        }

    def start(self, slots: int, target_returns: Array | None = None) -> Array:  # noqa: ARG002
        """Zeros, [slots, M]."""
        return np.zeros((slots, self.states * self.units), np.float32)


class GRU(Recurrent):
    """Gated recurrent units, M = units (Cho et al. 2014, arXiv:1406.1078), the reset gate after the product.

    r, z = σ(x W + h U + b); n = tanh(x W_n + b_n + r (h U_n + c_n)); h' = (1 − z) n + z h.
    """

    gates, states = 3, 1

    def step(self, x: Array, memory: Array) -> Array:
        """h'."""
        units = self.units
        of_input, of_hidden = x @ self._input_w + self._input_b, memory @ self._hidden_w + self._hidden_b
        both = _sigmoid(of_input[:, : 2 * units] + of_hidden[:, : 2 * units])
        new = np.tanh(of_input[:, 2 * units :] + both[:, :units] * of_hidden[:, 2 * units :])
        return np.asarray(new + both[:, units:] * (memory - new))


class LSTM(Recurrent):
    """Long short-term memory, M = 2 · units: h, then c (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    i, f, o = σ(x W + h U + b); g = tanh(x W_g + h U_g + b_g); c' = f c + i g; h' = o tanh c'.
    """

    gates, states = 4, 2

    def step(self, x: Array, memory: Array) -> Array:
        """h', c'."""
        units = self.units
        sums = x @ self._input_w + memory[:, :units] @ self._hidden_w + (self._input_b + self._hidden_b)
        enter, keep, leave = (_sigmoid(sums[:, i * units : (i + 1) * units]) for i in (0, 1, 3))
        cell = keep * memory[:, units:] + enter * np.tanh(sums[:, 2 * units : 3 * units])
        return np.concatenate([leave * np.tanh(cell), cell], axis=1)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), which overflows nowhere."""
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


CORES: dict[str, type[Core]] = {"gru": GRU, "lstm": LSTM, "transformer": Transformer, "gpt2": GPT2Core}
"""Kinds of cores, by what ``PolicyNetwork.memory`` calls them."""
