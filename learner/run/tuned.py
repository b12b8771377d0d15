"""Presets by environment: the best settings that we know for a pair, and where they are from."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.environment_name import parse
from actors.environments import describe
from learner.run.config import TrainConfig, overlay


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Settings of a preset for an environment."""

    changes: dict[str, Any]
    """As a file of options holds them, the budget that they were found with included."""
    origin: str
    """Where they are from, in words."""


_NORMALIZED = {"normalize_observations": True}
_TRIALS = "trials of two or three seeds a setting, November 2026"
_ONE_SEED = "trials of one seed a setting, November 2026"
_ONE_TRIAL = "a single trial, November 2026"
_AS_IT_IS = "the preset itself, and a budget that is enough (trials, November 2026)"

_MUJOCO: dict[str, Any] = {
    "network": _NORMALIZED,
    "algorithm": {"gamma": 0.99, "ent_coef": 0.0, "reward_scale": 0.02, "vf_coef": 0.5, "clip_range": 0.2},
    "optimisation": {"learning_rate": 2e-3, "max_grad_norm": 0.5},
}

_LAKE: dict[str, Any] = {
    "rollout": {"n_envs": 1024, "n_steps": 64},
    "optimisation": {"learning_rate": 1.0, "schedule": "linear"},
    "algorithm": {
        "gamma": 0.999,
        "n_epochs": 30,
        "batch_size": 65_536,
        "exploration_final_eps": 0.5,
        "exploration_steps": 400_000,
    },
}
"""Where actions slip: the whole batch is a pass, so that a cell's step is the mean over all that was seen of it."""

_OFTEN: dict[str, Any] = {"replay_ratio": 1 / 8, "batch_size": 128}
"""Four times the gradient steps, of a quarter of the size."""


def _of(steps: int, origin: str = _TRIALS, **sections: Any) -> Tuned:
    return Tuned({"stop": {"total_timesteps": steps}, **sections}, origin)


TUNED: dict[tuple[str, str], Tuned] = {
    ("ppo", "CartPole-v1"): _of(100_000, _AS_IT_IS),
    ("ppo", "Acrobot-v1"): _of(400_000, algorithm={"gamma": 0.99}),
    ("ppo", "MountainCar-v0"): _of(
        300_000, network=_NORMALIZED, algorithm={"gamma": 0.99, "ent_coef": 0.01, "reward_scale": 0.1}
    ),
    ("ppo", "MountainCarContinuous-v0"): _of(
        100_000, rollout={"n_envs": 8}, network=_NORMALIZED, algorithm={"gamma": 0.9999, "ent_coef": 0.02}
    ),
    ("ppo", "Pendulum-v1"): _of(300_000, _AS_IT_IS),
    ("ppo", "FrozenLake-v1"): _of(
        200_000, algorithm={"gamma": 0.99, "gae_lambda": 0.98, "ent_coef": 0.003, "reward_scale": 1.0}
    ),
    ("ppo", "LunarLander-v3(enable_wind=True)"): _of(800_000, algorithm={"gamma": 0.995}),
    ("ppo", "LunarLanderContinuous-v3"): _of(400_000, _AS_IT_IS),
    ("ppo", "Beresheet-v2"): _of(400_000, network=_NORMALIZED),
    ("ppo", "BipedalWalker-v3"): _of(
        1_000_000,
        network=_NORMALIZED,
        algorithm={
            "gamma": 0.99,
            "ent_coef": 0.0,
            "reward_scale": 0.1,
            "vf_coef": 0.5,
            "clip_range": 0.2,
        },
        optimisation={"learning_rate": 1e-3, "max_grad_norm": 0.5},
    ),
    ("q_learning", "Taxi-v3"): _of(200_000, optimisation={"learning_rate": 1.0}),
    ("q_learning", "CliffWalking-v1"): _of(
        60_000,
        rollout={"n_envs": 64},
        optimisation={"learning_rate": 1.0},
        algorithm={"exploration_steps": 60_000},
    ),
    ("q_learning", "FrozenLake-v1"): _of(600_000, **_LAKE),
    ("q_learning", "FrozenLake8x8-v1"): _of(600_000, **_LAKE),
    ("dqn", "CartPole-v1"): _of(100_000, algorithm={"reward_scale": 0.05, **_OFTEN}),
    ("dqn", "Acrobot-v1"): _of(
        150_000, algorithm={"exploration_steps": 60_000, **_OFTEN}, optimisation={"schedule": "linear"}
    ),
    ("dqn", "MountainCar-v0"): _of(200_000, algorithm={"exploration_steps": 100_000, **_OFTEN}),
    ("dqn", "LunarLander-v3"): _of(500_000, _AS_IT_IS),
    ("pqn", "CartPole-v1"): _of(150_000, algorithm={"reward_scale": 0.05}),
    ("pqn", "LunarLander-v3"): _of(500_000, _AS_IT_IS),
    ("sac", "Pendulum-v1"): _of(30_000, rollout={"n_envs": 8}, algorithm={"n_step": 1, "batch_size": 256}),
    ("sac", "LunarLanderContinuous-v3"): _of(250_000, _AS_IT_IS),
    ("sac", "BipedalWalker-v3"): _of(300_000, _ONE_TRIAL, algorithm={"n_step": 3, "batch_size": 256, "gamma": 0.98}),
    ("sac", "HalfCheetah-v5"): _of(
        300_000, _ONE_TRIAL, network={"hidden_sizes": [128, 128]}, algorithm={"n_step": 1, "batch_size": 256}
    ),
    ("doom", "VizdoomBasic-v1"): _of(120_000, _AS_IT_IS),
    ("doom", "VizdoomDefendCenter-v1"): _of(
        400_000,
        _ONE_SEED,
        rollout={"n_steps": 128},
        algorithm={"gamma": 0.99, "batch_size": 256, "reward_scale": 1.0},
    ),
    # Nobody sees their own health: what a step leads to is better told by rewards to the end than by the next value.
    ("doom", "VizdoomHealthGathering-v1"): _of(
        400_000,
        _ONE_SEED,
        rollout={"n_steps": 256},
        algorithm={
            **{"gamma": 0.99, "gae_lambda": 1.0, "batch_size": 512, "n_epochs": 8},
            **{"reward_scale": 0.05, "ent_coef": 0.003},
        },
        evaluation={"sampled": True},
    ),
    ("atari", "PongNoFrameskip-v4"): _of(10_000_000, "a budget that is customary; not tried to its end"),
    ("ppo", "Hopper-v5"): _of(500_000, **_MUJOCO),
    ("ppo", "Walker2d-v5"): _of(1_000_000, **_MUJOCO),
}
"""The settings known of (preset, environment); an environment without arguments stands for itself with any,
and one without wrappers for itself with any."""


def tuned_for(preset: str, env: str) -> Tuned | None:
    """The settings for a preset on an environment, whatever its arguments and wrappers; None: we know none.

    Raises:
        UserError: there is no such environment.
    """
    if not any(name == preset for name, _ in TUNED):
        return None
    whole = parse(describe(env).env_id)
    name = dataclasses.replace(whole, wrappers=())
    return TUNED.get((preset, str(whole))) or TUNED.get((preset, str(name))) or TUNED.get((preset, name.made))


def with_tuned(config: TrainConfig, tuned: Tuned, env: str) -> TrainConfig:
    """A preset's configuration with the settings for an environment over it."""
    return overlay(config, {**tuned.changes, "env": env}, f"tuned settings of {env}")
