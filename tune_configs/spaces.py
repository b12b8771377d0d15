"""Where a search looks: the range of every setting worth varying, by the class of algorithm that is searched.

A name is a field of TrainConfig, as in ``algorithm.gamma``. Ranges are wide enough to hold every setting that has been
seen to work on LunarLander and its like, or on Taxi and its like for tables, and no wider.
"""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.search.sample import Categorical

from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.algorithms.off_policy import OffPolicy
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.pqn import PQN
from learner.algorithms.sac import SAC
from learner.algorithms.tabular import Tabular
from learner.algorithms.value_based import ValueBased
from learner.run.config import TrainConfig

_NETWORK: dict[str, Any] = {
    "network.hidden_sizes": tune.choice(["32 32", "64 64", "128 128"]),
    "network.activation": tune.choice(["tanh", "relu"]),
    "network.normalize_observations": tune.choice([False, True]),
    "algorithm.reward_scale": tune.choice([0.003, 0.01, 0.03, 0.1]),
}
"""Of what learns a network by values or returns. A table has no layers, and the scale of rewards is no matter to it."""

_VALUE_NETWORK: dict[str, Any] = {
    **_NETWORK,
    "network.layer_norm": tune.choice([False, True]),
    "optimisation.learning_rate": tune.loguniform(1e-4, 1e-2),
}

SPACES: dict[type[Any], dict[str, Any]] = {
    Algorithm: {
        "algorithm.gamma": tune.choice([0.98, 0.99, 0.995, 0.998, 0.999]),
        "algorithm.batch_size": tune.choice([128, 256, 512, 1024]),
        "rollout.n_steps": tune.choice([16, 32, 64]),
    },
    PolicyGradient: {
        **_NETWORK,
        "optimisation.learning_rate": tune.loguniform(3e-4, 2e-2),
        "optimisation.max_grad_norm": tune.choice([0.5, 1.0, 2.0]),
        "algorithm.ent_coef": tune.loguniform(1e-4, 1e-1),
        "algorithm.vf_coef": tune.choice([0.25, 0.5, 1.0]),
        "algorithm.gae_lambda": tune.choice([0.9, 0.95, 0.98]),
        "algorithm.n_epochs": tune.choice([4, 6, 8, 10]),
        "algorithm.clip_range": tune.choice([0.1, 0.2, 0.3]),
        "rollout.n_steps": tune.choice([64, 128, 256]),
    },
    ValueBased: {
        "algorithm.exploration_steps": tune.choice([10_000, 20_000, 40_000, 60_000, 100_000]),
        "algorithm.exploration_final_eps": tune.choice([0.01, 0.02, 0.05, 0.1]),
    },
    OffPolicy: {
        **_VALUE_NETWORK,
        "network.hidden_sizes": tune.choice(["64 64", "128 128", "256 256"]),
        "algorithm.replay_ratio": tune.choice([1 / 64, 1 / 32, 1 / 16, 1 / 8]),
        "algorithm.buffer_size": tune.choice([20_000, 50_000, 100_000, 200_000]),
        "algorithm.prioritized": tune.choice([False, True]),
        "algorithm.n_step": tune.choice([1, 3, 5, 10]),
        "algorithm.target_update_interval": tune.choice([50, 100, 200, 500, 1000]),
        "algorithm.tau": tune.choice([0.002, 0.005, 0.01, 0.02]),
    },
    DQN: {
        "optimisation.max_grad_norm": tune.choice([1.0, 10.0, 40.0]),
        "algorithm.double": tune.choice([False, True]),
        "algorithm.dueling": tune.choice([False, True]),
    },
    PQN: {
        **_VALUE_NETWORK,
        "optimisation.max_grad_norm": tune.choice([1.0, 10.0, 40.0]),
        "algorithm.q_lambda": tune.choice([0.5, 0.65, 0.8, 0.9, 0.95]),
        "algorithm.n_epochs": tune.choice([1, 2, 4, 8]),
    },
    SAC: {
        "algorithm.reward_scale": tune.choice([0.03, 0.1, 0.3, 1.0]),
        "algorithm.replay_ratio": tune.choice([1 / 16, 1 / 8, 1 / 4, 1 / 2]),
    },
    Tabular: {
        "optimisation.learning_rate": tune.loguniform(0.05, 1.0),
        "algorithm.batch_size": tune.choice([512, 2048, 8192, 65_536]),
        "algorithm.n_epochs": tune.choice([1, 4, 10, 30]),
        "algorithm.exploration_steps": tune.choice([60_000, 100_000, 200_000, 300_000, 400_000]),
        "algorithm.exploration_final_eps": tune.choice([0.02, 0.05, 0.1, 0.2, 0.5]),
        "algorithm.visit_exponent": tune.choice([0.0, 0.5, 0.65, 0.8, 1.0]),
    },
}
"""An algorithm's space is its class's, laid over those of its base classes. ``rollout.n_steps`` are the steps of a
fragment, ``algorithm.n_step`` the rewards of a return."""

_KEPT_BY_MEMORY = ("buffer_size", "prioritized", "n_step", "gamma", "reward_scale")
"""What a replay memory is made with, and what the returns in it were worked out with."""
_LAYERS = ("network.", "rollout.", "algorithm.dueling")


def space_of(config: TrainConfig) -> dict[str, Any]:
    """The part of the space that means something to a configuration, whose own settings are among the choices."""
    space: dict[str, Any] = {}
    for kind in reversed(type(config.algorithm).__mro__):
        space |= SPACES.get(kind, {})
    own = config.flat()
    searched = own.keys() - idle_in(config)
    return {name: _with(own[name], values) for name, values in space.items() if name in searched}


def _with(own: Any, values: Any) -> Any:
    """A domain with another choice, if it has choices and not this one."""
    own = " ".join(map(str, own)) if isinstance(own, list) else own
    if isinstance(values, Categorical) and own not in values.categories:
        return tune.choice([*values.categories, own])
    return values


def idle_in(config: TrainConfig) -> set[str]:
    """Settings that change nothing as a configuration's others stand, or that it does without."""
    algorithm = config.algorithm
    idle = {f"algorithm.{name}" for name in algorithm.idle_options}
    if isinstance(algorithm, PolicyGradient) and algorithm.batch_size is None:
        idle |= {"algorithm.n_epochs", "rollout.n_steps"}  # learned at once, and once, and of the preset's size
    if config.rollout.n_steps is None:
        idle.add("rollout.n_steps")
    if isinstance(algorithm, PolicyGradient) and algorithm.ent_coef == 0:
        idle.add("algorithm.ent_coef")  # vpg's and bpg's, which is on no scale of logarithms
    if isinstance(algorithm, OffPolicy):  # a target is copied now and then, or follows all the time
        idle.add("algorithm.tau" if algorithm.tau == 1 else "algorithm.target_update_interval")
    return idle


def population_space_of(config: TrainConfig) -> dict[str, Any]:
    """The part of it that may change on the way, as members of a population copy each other's weights and memory."""
    kept = {f"algorithm.{name}" for name in _KEPT_BY_MEMORY} if isinstance(config.algorithm, OffPolicy) else set()
    return {
        name: values for name, values in space_of(config).items() if not name.startswith(_LAYERS) and name not in kept
    }


def nested(point: dict[str, Any]) -> dict[str, Any]:
    """A point of the space as the nested dictionary that a configuration file holds."""
    found: dict[str, Any] = {}
    for name, value in point.items():
        section, _, field = name.partition(".")
        sizes = field == "hidden_sizes"
        found.setdefault(section, {})[field] = [int(size) for size in value.split()] if sizes else value
    return found
