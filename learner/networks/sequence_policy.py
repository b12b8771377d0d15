"""A policy that attends to its last steps and to the return that is still to come, to learn from windows."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.networks.torch_policy import TorchPolicy
from learner.networks.transformer import TorchTransformer


class SequencePolicy(TorchPolicy):
    """π(a_t | o_≤t, a_<t, R_≤t), R the return that is still to come (Chen et al. 2021, arXiv:2106.01345)."""

    def forward(
        self,
        observations: Tensor,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        actions: Tensor,
        allows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """log π(a_t | …) and entropies of K steps of W windows, [W, K] each.

        Args:
            observations: [W, K, inputs], of pictures [W, K, C, H, W].
            previous_actions: [W, K, A]: of the step before, as networks see them; zeros before an episode's first.
            returns_to_go: [W, K].
            actions: [W, K] or [W, K, A]: those taken.
            allows: [W, K, A] bool: masks.
        """
        assert isinstance(self.core, TorchTransformer)
        shape = returns_to_go.shape
        hidden = self.hidden(observations.flatten(0, 1)).unflatten(0, shape)
        features = self.core(hidden, previous_actions, returns_to_go).flatten(0, 1)
        parameters = self.parameters_after(features, None if allows is None else allows.flatten(0, 1))
        log_probs, entropies = self.distribution.evaluate(parameters, actions.flatten(0, 1))
        return torch.unflatten(log_probs, 0, shape), torch.unflatten(entropies, 0, shape)
