"""Where a search looks: the range of every setting worth varying, by preset.

A name is a field of TrainConfig, as in ``algorithm.gamma``. Ranges are wide enough to hold every setting that has been
seen to work on LunarLander and its like, and no wider.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ray import tune

from learner.run.config import TrainConfig

SPACE: dict[str, Any] = {
    "optimisation.learning_rate": tune.loguniform(3e-4, 2e-2),
    "optimisation.max_grad_norm": tune.choice([0.5, 1.0, 2.0]),
    "algorithm.gamma": tune.choice([0.98, 0.99, 0.995, 0.998, 0.999]),
    "algorithm.ent_coef": tune.loguniform(1e-4, 1e-1),
    "algorithm.reward_scale": tune.choice([0.003, 0.01, 0.03, 0.1]),
    "network.hidden_sizes": tune.choice(["32 32", "64 64", "128 128"]),
    "network.activation": tune.choice(["tanh", "relu"]),
    "network.normalize_observations": tune.choice([False, True]),
    "algorithm.vf_coef": tune.choice([0.25, 0.5, 1.0]),
    "algorithm.gae_lambda": tune.choice([0.9, 0.95, 0.98]),
    "algorithm.batch_size": tune.choice([128, 256, 512, 1024]),
    "algorithm.n_epochs": tune.choice([4, 6, 8, 10]),
    "rollout.n_steps": tune.choice([64, 128, 256]),
    "algorithm.clip_range": tune.choice([0.1, 0.2, 0.3]),
}
"""Those of an algorithm are searched where it has them and, as its others stand, they change something."""

FIXED_AT_START = tuple(name for name in SPACE if name.startswith(("network.", "rollout.")))
"""What population based training leaves as the preset has it: its members copy each other's weights on their way."""


def space_of(config: TrainConfig) -> dict[str, Any]:
    """The part of the space that means something to a configuration."""
    means_nothing = {f"algorithm.{name}" for name in config.algorithm.idle_options}
    if "algorithm.n_epochs" in means_nothing or config.rollout.n_steps is None:
        means_nothing.add("rollout.n_steps")  # a batch that is learned at once has the size of the preset's
    sections = dataclasses.asdict(config)
    return {
        name: values
        for name, values in SPACE.items()
        if name not in means_nothing and name.partition(".")[2] in sections[name.partition(".")[0]]
    }


def nested(point: dict[str, Any]) -> dict[str, Any]:
    """A point of the space as the nested dictionary that a configuration file holds."""
    found: dict[str, Any] = {}
    for name, value in point.items():
        section, _, field = name.partition(".")
        sizes = field == "hidden_sizes"
        found.setdefault(section, {})[field] = [int(size) for size in value.split()] if sizes else value
    return found
