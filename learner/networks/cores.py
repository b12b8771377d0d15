"""The recurrent cores of ``actors/cores.py`` in torch, and their gradients through time.

Many small operations a step would be most of the time, and autograd takes three times as many on the way back: the
recursions are differentiated by hand, and products that need no order are taken for all steps at once. Tests hold the
gradients against autograd of PyTorch's own cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from actors.cores import CORES
from actors.spec import PolicySpec


class _GRU(torch.autograd.Function):
    """Memories after each of L steps of n lanes, [L, n, H]; ``begins`` marks where a stored one takes its place.

    Inputs: the input's part of the gates' sums [L, n, 3H], stored memories before each step [L, n, H], begins
    [L, n, 1] bool, and the weights [H, 3H] and biases [3H] of the hidden part.
    """

    @staticmethod
    def forward(ctx: Any, of_input: Tensor, stored: Tensor, begins: Tensor, w: Tensor, b: Tensor) -> Tensor:
        units = len(w)
        inputs, enters = of_input.split([2 * units, units], 2)
        memory = stored[0]
        before, gates, news, of_hidden, after = [], [], [], [], []
        for t in range(len(of_input)):
            if t:
                memory = torch.where(begins[t], stored[t], memory)
            before.append(memory)
            both, hidden = torch.addmm(b, memory, w).split([2 * units, units], 1)
            gates.append(torch.sigmoid(inputs[t] + both))
            of_hidden.append(hidden)
            news.append(torch.tanh(torch.addcmul(enters[t], gates[t][:, :units], hidden)))
            memory = torch.lerp(news[t], memory, gates[t][:, units:])
            after.append(memory)
        ctx.save_for_backward(*(torch.stack(parts) for parts in (before, gates, news, of_hidden)), begins, w)
        return torch.stack(after)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        before, gates, news, of_hidden, begins, w = ctx.saved_tensors
        (gradient,), units = gradients, len(w)
        reset, update = gates.split(units, 2)
        to_new = (1 - update) * (1 - news.square())
        to_reset, to_update = of_hidden * reset * (1 - reset), (before - news) * update * (1 - update)
        goes_on = (~begins).to(gradient.dtype)
        later = torch.zeros_like(gradient[0])
        of_news, of_sums = [later] * len(gradient), [later] * len(gradient)
        for t in reversed(range(len(gradient))):
            later = later + gradient[t]
            of_news[t] = later * to_new[t]
            of_sums[t] = torch.cat([of_news[t] * to_reset[t], later * to_update[t], of_news[t] * reset[t]], 1)
            later = (later * update[t] + of_sums[t] @ w.t()) * goes_on[t]
        sums = torch.stack(of_sums)
        of_input = torch.cat([sums[..., : 2 * units], torch.stack(of_news)], 2)
        return of_input, None, None, before.flatten(0, 1).t() @ sums.flatten(0, 1), sums.sum((0, 1))


class _LSTM(torch.autograd.Function):
    """The same, of memories [L, n, 2H], h and c side by side, and sums of gates [L, n, 4H]."""

    @staticmethod
    def forward(ctx: Any, of_input: Tensor, stored: Tensor, begins: Tensor, w: Tensor, b: Tensor) -> Tensor:
        units = len(w)
        memory = stored[0]
        before, gates, news, after = [], [], [], []
        for t in range(len(of_input)):
            if t:
                memory = torch.where(begins[t], stored[t], memory)
            before.append(memory)
            sums = of_input[t] + torch.addmm(b, memory[:, :units], w)
            gates.append(torch.sigmoid(sums))
            news.append(torch.tanh(sums[:, 2 * units : 3 * units]))
            enter, keep, _, leave = gates[t].split(units, 1)
            cell = torch.addcmul(keep * memory[:, units:], enter, news[t])
            memory = torch.cat([leave * torch.tanh(cell), cell], 1)
            after.append(memory)
        result = torch.stack(after)
        ctx.save_for_backward(*(torch.stack(parts) for parts in (before, gates, news)), result, begins, w)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        before, gates, news, after, begins, w = ctx.saved_tensors
        (gradient,), units = gradients, len(w)
        enter, keep, _, leave = gates.split(units, 2)
        shown = torch.tanh(after[..., units:])
        to_cell, to_leave = leave * (1 - shown.square()), shown * leave * (1 - leave)
        to_enter, to_keep = news * enter * (1 - enter), before[..., units:] * keep * (1 - keep)
        to_new = enter * (1 - news.square())
        goes_on = (~begins).to(gradient.dtype)
        of_hidden, of_cell = gradient.split(units, 2)
        later, later_cell = torch.zeros_like(of_hidden[0]), torch.zeros_like(of_cell[0])
        of_sums = [later] * len(gradient)
        for t in reversed(range(len(gradient))):
            later = later + of_hidden[t]
            cell = torch.addcmul(later_cell + of_cell[t], later, to_cell[t])
            parts = [cell * to_enter[t], cell * to_keep[t], cell * to_new[t], later * to_leave[t]]
            of_sums[t] = torch.cat(parts, 1)
            later, later_cell = of_sums[t] @ w.t() * goes_on[t], cell * keep[t] * goes_on[t]
        sums = torch.stack(of_sums)
        of_w = before[..., :units].flatten(0, 1).t() @ sums.flatten(0, 1)
        return sums, None, None, of_w, sums.sum((0, 1))


_RECURSIONS: dict[str, type[torch.autograd.Function]] = {"gru": _GRU, "lstm": _LSTM}


class TorchCore(nn.Module):
    """A core to learn with; orthogonal weights, zero biases, and an LSTM that keeps at first (Jozefowicz et al. 2015).

    Args:
        spec: of the policy, whose memory is gru or lstm.
    """

    core_input_w: nn.Parameter
    core_input_b: nn.Parameter
    core_hidden_w: nn.Parameter
    core_hidden_b: nn.Parameter

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        kind, units = spec.network.memory, spec.network.memory_size
        self._recursion, self.units = _RECURSIONS[kind], units
        for name, shape in CORES[kind].weight_shapes(spec).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        for w in (self.core_input_w, self.core_hidden_w):
            for gate in w.detach().split(units, 1):
                nn.init.orthogonal_(gate)
        if kind == "lstm":
            self.core_input_b.detach()[units : 2 * units] = 1

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """What a policy keeps of it, by name."""
        return self.named_parameters()

    def _after(self, of_input: Tensor, stored: Tensor, begins: Tensor) -> Tensor:
        after: Tensor = self._recursion.apply(of_input, stored, begins, self.core_hidden_w, self.core_hidden_b)
        return after

    def windows(self, x: Tensor, memories: Tensor, begins: Tensor, length: int) -> Tensor:
        """Memories after each of B consecutive steps, [B, M]; gradients go back to the last multiple of ``length``.

        Args:
            x: [B, inputs].
            memories: [B, M]: before each step, as stored; read where a window begins, and where ``begins`` says.
            begins: [B] bool: the first steps of segments.
            length: steps of a window.
        """
        steps = len(x)
        length = min(length, steps)

        def laned(rows: Tensor) -> Tensor:  # [length, windows, …]; the last window is filled up with its last row
            if missing := -steps % length:
                rows = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
            lanes: Tensor = rows.unflatten(0, (-1, length)).transpose(0, 1)
            return lanes

        lanes = laned(x)
        of_input = torch.addmm(self.core_input_b, lanes.flatten(0, 1), self.core_input_w).unflatten(0, lanes.shape[:2])
        after = self._after(of_input, laned(memories), laned(begins[:, None]))
        return after.transpose(0, 1).flatten(0, 1)[:steps]

    def segments(self, x: Tensor, start: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Memories before and after each of T steps of E segments, [T, M] each, without gradients.

        Args:
            x: [T, inputs].
            start: [E, M]: before the first step of each segment.
            ends: [E] int64: its last step.
        """
        of_input = torch.addmm(self.core_input_b, x, self.core_input_w)
        before = torch.empty(len(x), start.shape[1], dtype=start.dtype, device=start.device)
        after = torch.empty_like(before)
        firsts = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
        lengths, order = (ends - firsts + 1).sort(descending=True)
        memory, rows = start[order], firsts[order]
        goes_on = (lengths[:, None] > torch.arange(int(lengths[0]), device=lengths.device)).sum(0)
        for t, count in enumerate(goes_on.tolist()):  # the longest come first: those that still go on are a prefix
            now, memory = rows[:count] + t, memory[:count]
            before[now] = memory
            begins = torch.zeros(1, count, 1, dtype=torch.bool, device=memory.device)
            memory = self._after(of_input[now][None], memory[None], begins)[0]
            after[now] = memory
        return before, after
