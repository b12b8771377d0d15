"""The Decision Transformer's core in torch: the twin of the one that acts, in ``actors/transformer``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from actors.layers import LAYER_NORM_EPS
from actors.spec import PolicySpec
from actors.transformer import Transformer, alibi


class TorchTransformer(nn.Module):
    """Blocks of causal attention over windows of steps.

    Weights are drawn as GPT-2's are: normal, of deviation 0.02, those that end a branch smaller by √(2 · blocks)
    (Radford et al. 2019).

    Args:
        spec: of the policy.
    """

    core_return_mean: Tensor
    core_return_std: Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self._blocks, self._heads = spec.network.memory_layers, spec.network.memory_heads
        self.units = spec.network.memory_size
        for name, shape in Transformer.weight_shapes(spec).items():
            if name in Transformer.unlearned:
                self.register_buffer(name, torch.full(shape, float(name.endswith("std"))))
                continue
            weight = torch.zeros(shape)
            if name.endswith("scale"):
                weight.fill_(1)
            elif name.endswith("_w"):
                ends_branch = name.endswith(("joined_w", "narrow_w"))
                nn.init.normal_(weight, std=0.02 / (2 * self._blocks) ** 0.5 if ends_branch else 0.02)
            self.register_parameter(name, nn.Parameter(weight))
        window = spec.network.memory_window
        bias = torch.from_numpy(alibi(self._heads, window)[:window]).transpose(0, 1)  # of step t, key s: none beyond t
        self.register_buffer("_bias", bias.contiguous(), persistent=False)

    def named_weights(self) -> list[tuple[str, Tensor]]:
        """What a policy keeps of it, by name."""
        kept = [(name, buffer) for name, buffer in self.named_buffers() if name in Transformer.unlearned]
        return [*self.named_parameters(), *kept]

    def set_returns(self, mean: float, std: float) -> None:
        """Set by what returns that are still to come are standardised."""
        self.core_return_mean.fill_(mean)
        self.core_return_std.fill_(std)

    def forward(self, x: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        """What the output layer reads at each of K steps of W windows, K of ``memory_window`` at most: [W, K, units].

        Args:
            x: [W, K, inputs]: what the hidden layers make of observations.
            actions: [W, K, A]: the action before each step, as a network sees it; zeros before an episode's first.
            returns: [W, K]: the return still to come at each step.
        """
        steps = x.shape[1]
        bias: Tensor = self._bias[None, :, :steps, :steps]  # type: ignore[index]
        of = dict(self.named_parameters())
        to_come = ((returns - self.core_return_mean) / self.core_return_std)[..., None]
        x = x @ of["core_token_w"] + actions @ of["core_action_w"] + to_come * of["core_return_w"] + of["core_token_b"]
        for i in range(self._blocks):
            normal = self._normalized(x, f"core_{i}_attend_")
            both = normal @ of[f"core_{i}_heads_w"] + of[f"core_{i}_heads_b"]
            query, keys, values = both.unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
            x = x + attended.transpose(1, 2).flatten(2) @ of[f"core_{i}_joined_w"] + of[f"core_{i}_joined_b"]
            wide = self._normalized(x, f"core_{i}_feed_") @ of[f"core_{i}_wide_w"] + of[f"core_{i}_wide_b"]
            x = x + functional.relu(wide) @ of[f"core_{i}_narrow_w"] + of[f"core_{i}_narrow_b"]
        return self._normalized(x, "core_")

    def _normalized(self, x: Tensor, name: str) -> Tensor:
        of = dict(self.named_parameters())
        return functional.layer_norm(x, (self.units,), of[f"{name}scale"], of[f"{name}shift"], LAYER_NORM_EPS)
