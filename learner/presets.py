"""The presets: eight losses as data. Each is a TrainConfig that learns LunarLander; options change any part of it."""

from __future__ import annotations

from typing import Any

from actors.errors import unknown
from learner.config import TrainConfig, overlay

_EPISODES: dict[str, Any] = {
    "rollout": {"n_envs": 16, "n_steps": None, "episodes_per_env": 1},
    "fleet": {"rollouts_per_update": 2},
    "update": {"n_epochs": 1, "batch_size": None},
    "loss": {"loss": "policy_gradient", "vf_coef": 0.5, "normalize_entropy": True},
}
"""REINFORCE and its kin: batches of 32 whole episodes, one gradient step each."""

PRESETS: dict[str, list[dict[str, Any]]] = {
    "vpg": [_EPISODES, {"loss": {"advantage": "reward_to_go"}}],
    "bpg": [_EPISODES, {"loss": {"advantage": "baseline"}}],
    "epg": [_EPISODES, {"loss": {"advantage": "reward_to_go", "ent_coef": 0.01}}],
    "cpg": [_EPISODES, {"loss": {"advantage": "baseline", "ent_coef": 0.01}}],
    "aac": [_EPISODES, {"loss": {"advantage": "critic", "ent_coef": 0.01}}],
    "a2c": [_EPISODES, {"loss": {"advantage": "gae", "ent_coef": 0.01}}],
    "ppo": [{"loss": {"loss": "ppo", "advantage": "gae"}}],
    "impala": [{"loss": {"loss": "policy_gradient", "advantage": "vtrace"}}],
}
"""Each preset is a list of changes to the defaults, laid over one another in order."""


def preset(name: str) -> TrainConfig:
    """The configuration of that name.

    Raises:
        UserError: there is none.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    config = TrainConfig()
    for changes in PRESETS[name]:
        config = overlay(config, changes, f"preset {name}")
    return config
