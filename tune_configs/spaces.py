"""Where a search looks: the range of every setting worth varying, by preset.

A name is a field of TrainConfig, as in ``loss.gamma``. Ranges are wide enough to hold every setting that has been seen
to work on LunarLander and its like, and no wider.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from learner.config import TrainConfig

SPACE: dict[str, Any] = {
    "update.learning_rate": tune.loguniform(3e-4, 2e-2),
    "update.max_grad_norm": tune.choice([0.5, 1.0, 2.0]),
    "loss.gamma": tune.choice([0.98, 0.99, 0.995, 0.998, 0.999]),
    "loss.ent_coef": tune.loguniform(1e-4, 3e-2),
    "loss.reward_scale": tune.choice([0.003, 0.01, 0.03, 0.1]),
    "network.hidden_sizes": tune.choice(["32 32", "64 64", "128 128"]),
    "network.activation": tune.choice(["tanh", "relu"]),
}
"""Of every preset."""

WITH_CRITIC: dict[str, Any] = {"loss.vf_coef": tune.choice([0.25, 0.5, 1.0])}
WITH_LAMBDA: dict[str, Any] = {"loss.gae_lambda": tune.choice([0.9, 0.95, 0.98])}
WITH_MINIBATCHES: dict[str, Any] = {
    "update.batch_size": tune.choice([128, 256, 512, 1024]),
    "update.n_epochs": tune.choice([4, 6, 8, 10]),
    "rollout.n_steps": tune.choice([64, 128, 256]),
}
WITH_CLIPPING: dict[str, Any] = {"loss.clip_range": tune.choice([0.1, 0.2, 0.3])}

FIXED_AT_START = ("network.hidden_sizes", "network.activation", "rollout.n_steps")
"""What population based training leaves as the preset has it: its members copy each other's weights on their way."""


def space_of(config: TrainConfig) -> dict[str, Any]:
    """The part of the space that means something to a configuration."""
    space = dict(SPACE)
    if config.loss.has_critic:
        space |= WITH_CRITIC
    if config.loss.advantage in ("gae", "vtrace"):
        space |= WITH_LAMBDA
    if config.update.batch_size is not None:
        space |= WITH_MINIBATCHES
    if config.loss.loss == "ppo":
        space |= WITH_CLIPPING
    return space


def nested(point: dict[str, Any]) -> dict[str, Any]:
    """A point of the space as the nested dictionary that a configuration file holds."""
    found: dict[str, Any] = {}
    for name, value in point.items():
        section, _, field = name.partition(".")
        sizes = field == "hidden_sizes"
        found.setdefault(section, {})[field] = [int(size) for size in value.split()] if sizes else value
    return found
