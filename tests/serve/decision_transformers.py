"""Decision Transformers of the transformers library with random weights, and the blog post's way to act with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.trees import Array

HOPPER = {"state_dim": 11, "act_dim": 3}
WINDOW = 20


def saved(directory: Path, **config: Any) -> Any:
    """A small model for Hopper whose actions depend on all that it is told of, and its checkpoint."""
    from transformers import DecisionTransformerConfig, DecisionTransformerModel  # here: it takes seconds

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "n_layer": 3,
        "n_head": 2,
        "max_ep_len": 100,
        "initializer_range": 0.2,
        "n_positions": 9,
    }
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = DecisionTransformerModel(DecisionTransformerConfig(**(HOPPER | sizes | ends | config))).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and normalisations too, which start as nothing
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return model


class Episode:
    """An episode as the blog post flies it (https://huggingface.co/blog/decision-transformers)."""

    def __init__(self, model: Any, mean: Array, std: Array, scale: float, target_return: float) -> None:
        self.model, self.scale = model, scale
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(std)
        self.states, self.actions = torch.zeros((0, len(mean))), torch.zeros((0, model.config.act_dim))
        self.target_return = torch.tensor(target_return / scale).float().reshape(1, 1)

    def act(self, state: Array) -> Array:
        """The action for a state, of which there may be one more once ``rewarded`` was told of this one's reward."""
        self.states = torch.cat([self.states, torch.from_numpy(state).reshape(1, -1).float()])
        self.actions = torch.cat([self.actions, torch.zeros((1, self.actions.shape[1]))])
        steps = torch.arange(len(self.states)).reshape(1, -1)
        action = self._get_action((self.states - self.mean) / self.std, self.actions, self.target_return, steps)
        self.actions[-1] = action
        return np.asarray(action)

    def rewarded(self, reward: float) -> None:
        left = self.target_return[0, -1] - (reward / self.scale)
        self.target_return = torch.cat([self.target_return, left.reshape(1, 1)], dim=1)

    @torch.no_grad()
    def _get_action(self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor) -> Tensor:
        config = self.model.config
        states = states.reshape(1, -1, config.state_dim)[:, -WINDOW:]
        actions = actions.reshape(1, -1, config.act_dim)[:, -WINDOW:]
        returns_to_go, timesteps = returns_to_go.reshape(1, -1, 1)[:, -WINDOW:], timesteps[:, -WINDOW:]
        padding = WINDOW - states.shape[1]
        attention_mask = torch.cat([torch.zeros(padding), torch.ones(states.shape[1])]).to(dtype=torch.long)
        states = torch.cat([torch.zeros((1, padding, config.state_dim)), states], dim=1).float()
        actions = torch.cat([torch.zeros((1, padding, config.act_dim)), actions], dim=1).float()
        returns_to_go = torch.cat([torch.zeros((1, padding, 1)), returns_to_go], dim=1).float()
        timesteps = torch.cat([torch.zeros((1, padding), dtype=torch.long), timesteps], dim=1)
        _, action_preds, _ = self.model(
            states=states,
            actions=actions,
            returns_to_go=returns_to_go,
            timesteps=timesteps,
            attention_mask=attention_mask.reshape(1, -1),
            return_dict=False,
        )
        preds: Tensor = action_preds[0, -1]
        return preds
