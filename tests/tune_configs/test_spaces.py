"""Spaces: what is searched of each preset, and that every point of it can be trained with."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from ray.tune.schedulers.pbt import _explore
from ray.tune.search.sample import Categorical, Float

from actors.environments import describe
from learner.algorithms.algorithm import Algorithm
from learner.algorithms.dqn import DQN
from learner.algorithms.off_policy import OffPolicy
from learner.algorithms.ppo import PPO
from learner.algorithms.pqn import PQN
from learner.algorithms.tabular import Tabular
from learner.run.config import TrainConfig, overlay
from learner.run.presets import PRESETS, preset
from tune_configs.experiment import require_learnable
from tune_configs.search import mutations_of
from tune_configs.spaces import nested, population_space_of, space_of


def learning_by(kind: type[Algorithm]) -> set[str]:
    """The presets of an algorithm, or of one that extends it."""
    return {name for name in PRESETS if isinstance(preset(name).algorithm, kind)}


SEARCHED = [name for name in PRESETS if not preset(name).algorithm.is_offline]
"""Those that fly; of what learns from recordings there is no search."""
AT_ONCE = {"vpg", "bpg", "epg", "cpg", "aac", "a2c", "impala"}
"""Learn each batch in one step."""
EVERY, PPOS, DQNS, PQNS = set(SEARCHED), learning_by(PPO), learning_by(DQN), learning_by(PQN)
REPLAYS, TABLES = learning_by(OffPolicy), learning_by(Tabular)
WHERE = {
    "optimisation.learning_rate": EVERY,
    "algorithm.gamma": EVERY,
    "algorithm.batch_size": EVERY - AT_ONCE,
    "rollout.n_steps": EVERY - AT_ONCE,
    "optimisation.max_grad_norm": AT_ONCE | PPOS | DQNS | PQNS,
    "algorithm.reward_scale": EVERY - TABLES,
    "network.hidden_sizes": EVERY - TABLES,
    "network.activation": EVERY - TABLES,
    "network.normalize_observations": EVERY - TABLES,
    "network.layer_norm": REPLAYS | PQNS,
    "algorithm.n_epochs": PPOS | PQNS | TABLES,
    "algorithm.ent_coef": AT_ONCE - {"vpg", "bpg"} | PPOS,
    "algorithm.vf_coef": {"aac", "a2c", "impala"} | PPOS,
    "algorithm.gae_lambda": {"a2c", "impala"} | PPOS,
    "algorithm.clip_range": PPOS,
    "algorithm.exploration_steps": DQNS | PQNS | TABLES,
    "algorithm.exploration_final_eps": DQNS | PQNS | TABLES,
    "algorithm.replay_ratio": REPLAYS,
    "algorithm.buffer_size": REPLAYS,
    "algorithm.prioritized": REPLAYS,
    "algorithm.n_step": REPLAYS,
    "algorithm.target_update_interval": DQNS,
    "algorithm.tau": REPLAYS - DQNS,
    "algorithm.double": DQNS,
    "algorithm.dueling": DQNS,
    "algorithm.q_lambda": PQNS,
    "algorithm.visit_exponent": TABLES,
}
"""The presets in which each setting is searched."""


@pytest.mark.parametrize("name", SEARCHED)
def test_a_space_has_what_means_something_to_the_preset(name: str) -> None:
    assert set(space_of(preset(name))) == {field for field, presets in WHERE.items() if name in presets}


def holds(domain: Any, value: Any) -> bool:
    if isinstance(domain, Categorical):
        return value in domain.categories
    assert isinstance(domain, Float)
    return bool(domain.lower <= value <= domain.upper)


@pytest.mark.parametrize("name", SEARCHED)
def test_a_presets_own_settings_are_points_of_its_space(name: str) -> None:
    """A search that could not find the preset again would be the worse for it."""
    own = preset(name).flat()
    sizes = "network.hidden_sizes"
    for field, domain in space_of(preset(name)).items():
        value = " ".join(map(str, own[field])) if field == sizes else own[field]
        assert holds(domain, value), (field, value)


@pytest.mark.parametrize("name", SEARCHED)
def test_every_point_can_be_trained_with(name: str) -> None:
    """Sizes, ranges and what one setting asks of another are checked where a configuration and a network are made."""
    base = preset(name)
    environment = describe(base.env)
    for seed in range(40):
        point = {field: domain.sample(random_state=seed) for field, domain in space_of(base).items()}
        require_learnable(name, overlay(base, nested(point), "point"), environment)


def test_targets_that_follow_all_the_time_are_searched_by_how_fast() -> None:
    soft = overlay(preset("dqn"), {"algorithm": {"tau": 0.005, "target_update_interval": 1}}, "soft")
    assert space_of(preset("dqn")).keys() ^ space_of(soft).keys() == {
        "algorithm.tau",
        "algorithm.target_update_interval",
    }
    assert "algorithm.tau" in space_of(soft)


def test_an_algorithm_of_ones_own_has_the_space_of_what_it_extends() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(DQN):
        """Another."""

    ours = preset("dqn")
    assert space_of(dataclasses.replace(ours, algorithm=Mine(tau=0.5))).keys() ^ space_of(ours).keys() == {
        "algorithm.tau",
        "algorithm.target_update_interval",
    }


def test_a_point_is_a_configuration_file() -> None:
    point = {"algorithm.gamma": 0.9, "algorithm.clip_range": 0.1, "network.hidden_sizes": "32 32"}
    assert nested(point) == {"algorithm": {"gamma": 0.9, "clip_range": 0.1}, "network": {"hidden_sizes": [32, 32]}}


def test_steps_of_a_fragment_are_not_those_of_a_return() -> None:
    config = overlay(TrainConfig(), {"algorithm": {"name": "dqn"}}, "dqn")
    config = overlay(config, nested({"rollout.n_steps": 16, "algorithm.n_step": 3}), "point")
    assert isinstance(config.algorithm, DQN)
    assert (config.rollout.n_steps, config.algorithm.n_step) == (16, 3)


@pytest.mark.parametrize("name", SEARCHED)
def test_a_population_stays_in_the_space(name: str) -> None:
    """Its mutations of every member are configurations, whatever they are mutated from."""
    base = preset(name)
    space = population_space_of(base)
    mutations = mutations_of(space)
    assert set(mutations) == set(space)
    random.seed(0)
    point = {key: domain.sample(random_state=0) for key, domain in space.items()}
    for _ in range(40):
        point, _operations = _explore(point, mutations, 0.25, (1.2, 0.8), None)  # type: ignore[arg-type]
        assert overlay(base, nested(point), "point")
        for key, domain in space.items():
            if isinstance(domain, Categorical):
                assert point[key] in domain.categories


def test_members_of_a_population_can_take_over_weights_and_memory() -> None:
    """What shapes them stays as the preset has it; and so do, for a replay memory, what its returns are made with."""
    fixed = {
        name: space_of(preset(name)).keys() - population_space_of(preset(name)).keys() for name in ("ppo", "pqn", "dqn")
    }
    network = {"network.hidden_sizes", "network.activation", "network.normalize_observations", "rollout.n_steps"}
    assert fixed["ppo"] == network
    assert fixed["pqn"] == network | {"network.layer_norm"}
    assert fixed["dqn"] == network | {"network.layer_norm", "algorithm.dueling"} | {
        f"algorithm.{option}" for option in ("buffer_size", "prioritized", "n_step", "gamma", "reward_scale")
    }
