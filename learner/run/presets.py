"""The presets: algorithms and their options as data. Each is a TrainConfig that learns LunarLander, or says what."""

from __future__ import annotations

import math
from typing import Any

from actors.errors import unknown
from learner.run.config import TrainConfig, overlay

_EPISODES: dict[str, Any] = {
    "rollout": {"n_envs": 16, "n_steps": None, "episodes_per_env": 1},
    "fleet": {"rollouts_per_update": 2, "max_policy_lag": 0},
    "network": {"normalize_observations": True},
    "algorithm": {
        "name": "policy_gradient",
        "n_epochs": 1,
        "batch_size": None,
        "gamma": 0.99,
        "reward_scale": 0.01,
        "normalize_advantage": False,
    },
    "optimisation": {"learning_rate": 1e-2},
}
"""REINFORCE and its kin, on-policy: batches of 32 whole episodes, one gradient step each."""

_TABLE: dict[str, Any] = {
    "env": "Taxi-v3",
    "rollout": {"n_envs": 256, "n_steps": 32},
    "network": {"hidden_sizes": []},
    "optimisation": {"optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": math.inf},
    "algorithm": {"name": "tabular", "gamma": 0.99, "n_epochs": 4, "batch_size": 2048, "exploration_steps": 300_000},
}
"""Learning a table, from many environments at once."""

_REPLAY: dict[str, Any] = {
    "rollout": {"n_envs": 64, "n_steps": 32},
    "network": {"activation": "relu"},
    "optimisation": {"learning_rate": 1e-3, "max_grad_norm": 10.0},
    "algorithm": {"name": "dqn", "gamma": 0.99, "reward_scale": 0.01},
}
"""Learning from a replay memory: 2 gradient steps for 64 steps flown."""

_DOUBLE: dict[str, Any] = {"algorithm": {"double": True}}
_DUELING: dict[str, Any] = {"algorithm": {"dueling": True}}
_PRIORITIZED: dict[str, Any] = {"algorithm": {"prioritized": True}}

_ENTROPY: dict[str, Any] = {"algorithm": {"ent_coef": 0.005, "normalize_entropy": True}}

_RECORDED: dict[str, Any] = {
    "network": {"normalize_observations": True},
    "optimisation": {"learning_rate": 1e-3, "schedule": "linear"},
    "stop": {"total_timesteps": None, "max_updates": 30},
}
"""Learning from recordings: 3,000 gradient steps."""

PRESETS: dict[str, list[dict[str, Any]]] = {
    "vpg": [_EPISODES, {"algorithm": {"advantage": "reward_to_go"}}],
    "bpg": [_EPISODES, {"algorithm": {"advantage": "baseline"}}],
    "epg": [_EPISODES, _ENTROPY, {"algorithm": {"advantage": "reward_to_go"}}],
    "cpg": [_EPISODES, _ENTROPY, {"algorithm": {"advantage": "baseline"}}],
    "aac": [_EPISODES, _ENTROPY, {"algorithm": {"advantage": "critic"}}],
    "a2c": [_EPISODES, _ENTROPY, {"algorithm": {"advantage": "gae"}}],
    "ppo": [
        {
            "rollout": {"n_envs": 32, "n_steps": 128},
            "network": {"activation": "relu"},
            "optimisation": {"learning_rate": 4.6e-3, "schedule": "linear", "max_grad_norm": 1.0},
            "algorithm": {
                "name": "ppo",
                "n_epochs": 10,
                "batch_size": 1024,
                "advantage": "gae",
                "gamma": 0.998,
                "gae_lambda": 0.95,
                "ent_coef": 0.001,
                "clip_range": 0.3,
                "vf_coef": 1.0,
                "reward_scale": 0.01,
            },
        }
    ],
    "impala": [
        {
            "rollout": {"n_envs": 32, "n_steps": 32},
            "fleet": {"max_policy_lag": 4},
            "optimisation": {"learning_rate": 3e-3},
            "algorithm": {
                "name": "policy_gradient",
                "n_epochs": 1,
                "batch_size": None,
                "advantage": "vtrace",
                "gamma": 0.99,
                "ent_coef": 0.01,
                "reward_scale": 0.01,
                "normalize_advantage": False,
            },
        }
    ],
    "q_learning": [_TABLE],
    "sarsa": [_TABLE, {"algorithm": {"target": "sarsa"}}],
    "expected_sarsa": [_TABLE, {"algorithm": {"target": "expected"}}],
    "nature_dqn": [_REPLAY],
    "double_dqn": [_REPLAY, _DOUBLE],
    "dueling_dqn": [_REPLAY, _DOUBLE, _DUELING],
    "prioritized_dqn": [_REPLAY, _DOUBLE, _DUELING, _PRIORITIZED],
    "dqn": [_REPLAY, _DOUBLE, {"algorithm": {"n_step": 10}}],
    "qrdqn": [_REPLAY, _DOUBLE, {"algorithm": {"n_step": 10, "n_quantiles": 25}}],
    "sac": [
        {
            "env": "LunarLanderContinuous-v3",
            "rollout": {"n_envs": 16, "n_steps": 16},
            "network": {"activation": "relu"},
            "optimisation": {"learning_rate": 1e-3, "max_grad_norm": math.inf},
            "algorithm": {
                "name": "sac",
                "gamma": 0.99,
                "reward_scale": 0.1,
                "batch_size": 128,
                "buffer_size": 200_000,
                "replay_ratio": 1 / 4,
                "n_step": 5,
                "target_update_interval": 1,
                "tau": 0.01,
            },
        }
    ],
    "doom": [
        {
            "env": "VizdoomBasic-v1(frame_skip=4, screen_resolution='RES_160X120', screen_format='GRAY8')"
            " | Screen(height=30, width=45)",
            "rollout": {"n_envs": 16, "n_steps": 128},
            "network": {"hidden_sizes": [128], "activation": "relu"},
            "optimisation": {"learning_rate": 1e-3},
            "algorithm": {
                "name": "ppo",
                "n_epochs": 4,
                "batch_size": 128,
                "advantage": "gae",
                "gamma": 0.97,
                "ent_coef": 0.01,
                "reward_scale": 0.01,
            },
        }
    ],
    "atari": [
        {
            "env": "PongNoFrameskip-v4 | AtariPreprocessing(noop_max=30, frame_skip=4, screen_size=84)"
            " | FrameStackObservation(stack_size=4)",
            "rollout": {"n_envs": 16, "n_steps": 128},
            "network": {"hidden_sizes": [512], "activation": "relu"},
            "optimisation": {"learning_rate": 5e-4, "schedule": "linear"},
            "algorithm": {
                "name": "ppo",
                "n_epochs": 4,
                "batch_size": 256,
                "advantage": "gae",
                "gamma": 0.99,
                "ent_coef": 0.01,
                "clip_range": 0.1,
                "reward_clip": 1.0,
            },
        }
    ],
    "bc": [_RECORDED, {"network": {"activation": "relu"}, "algorithm": {"name": "bc", "batch_size": 1024}}],
    "dt": [
        _RECORDED,
        {
            "network": {"memory": "transformer", "hidden_sizes": [64], "activation": "relu"},
            "algorithm": {"name": "dt", "batch_size": 960},
            "optimisation": {"max_grad_norm": 1.0},
        },
    ],
    "cql": [
        _RECORDED,
        {
            "network": {"hidden_sizes": [128, 128], "activation": "relu"},
            "algorithm": {
                "name": "cql",
                "gamma": 0.99,
                "reward_scale": 0.01,
                "batch_size": 256,
                "double": True,
                "n_step": 10,
                "conservatism": 0.1,
            },
        },
    ],
    "pqn": [
        {
            "rollout": {"n_envs": 64, "n_steps": 32},
            "network": {"activation": "relu", "hidden_sizes": [32, 32]},
            "optimisation": {"learning_rate": 2e-3, "schedule": "linear", "max_grad_norm": 10.0},
            "algorithm": {
                "name": "pqn",
                "gamma": 0.99,
                "reward_scale": 0.01,
                "batch_size": 256,
                "n_epochs": 8,
                "exploration_steps": 60_000,
            },
        }
    ],
}
"""Each preset is a list of changes to the defaults, laid over one another in order.

nature_dqn is what Mnih et al. published in 2015, and the three after it add what was found later, one by one. doom and
atari are PPO from pictures.
"""


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
