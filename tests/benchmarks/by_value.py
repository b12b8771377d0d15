"""Learning by value, timed: who solves LunarLander when, the best policy of a minute, and tables to the exact optimum.

python -m tests.benchmarks.by_value --seeds 5
python -m tests.benchmarks.by_value --parts tables --seeds 5
python -m tests.benchmarks.by_value --parts "sb3 dqn" --seeds 5

The runs' seeds are others than those that settings were chosen on. A run has solved an environment with the first of
its policies whose 100 greedy Gymnasium episodes average the threshold (see ``solving``); a table has with the first
policy that is worth the best stationary one, worked out from the environment's transitions. Stable-Baselines3's DQN
and SAC, with the zoo's settings and torch on one thread, are judged by the same rule.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from actors.evaluation import fly_episodes
from actors.making import make_gymnasium
from actors.policy import Policy
from learner.run.callback import Callback
from learner.run.config import overlay
from learner.run.presets import preset
from learner.run.result import Result
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from learner.run.tuned import tuned_for, with_tuned
from tests.benchmarks.exact import Model, greedy_actions
from tests.benchmarks.measures import Measure, measure
from tests.benchmarks.solving import QUICK_EPISODES, SEED, fly
from tune_configs import recipe
from tune_configs.peers import sb3 as peers

RESULTS = Path(__file__).parent / "results" / "by_value.json"
FIRST_RUN = 100
"""Seed of the first run: settings were chosen on others."""
DISCRETE = {"dqn": ("LunarLander-v3", 200.0), "pqn": ("LunarLander-v3", 200.0)}
CONTINUOUS = {"sac": ("LunarLanderContinuous-v3", 200.0), "sac on Pendulum": ("Pendulum-v1", -160.0)}
SPACING = 0.25
"""Seconds of training between policies that are flown: each takes a second or more."""
TABLES = ("Taxi-v3", "CliffWalking-v1", "FrozenLake8x8-v1")
QUICK = {200.0: 120.0, -160.0: -250.0}
"""A policy whose first ten episodes average less is not worth a hundred."""
MINUTE: dict[str, Any] = {
    "stop": {"total_timesteps": None, "max_seconds": 60.0},
    "evaluation": {"eval_every": 100_000},
    "optimisation": {"schedule": "linear"},
    "algorithm": {"gamma": 0.995, "exploration_final_eps": 0.02},
}
"""What lasts longer pays off over a minute, and the last steps are small."""
LANDINGS = 1_000
ZOO_STEPS = 500_000
"""Over which the learning rate of the zoo's SAC falls on LunarLanderContinuous."""
SB3_STEPS = {"dqn": 150_000, "sac": 100_000, "sac on Pendulum": 10_000}
"""Of Stable-Baselines3's runs at most: hours would be needed for as many as ours take."""
SB3_SPACING = {"dqn": 2_500, "sac": 2_500, "sac on Pendulum": 500}
"""Steps between its policies that are flown."""
Kept = list[tuple[float, int, Policy]]
"""(seconds of training, steps, policy) of each update."""


@dataclasses.dataclass(frozen=True)
class ByValue:
    """Measure learning by value; writes tests/benchmarks/results/by_value.json."""

    seeds: int = 5
    """Runs of each."""
    parts: tuple[str, ...] = ("tables", "discrete", "continuous", "minute")
    """Which; also sb3 dqn, sb3 sac, sb3 sac on Pendulum."""


class Keep(Callback):
    """Keeps each update's policy in memory."""

    def __init__(self) -> None:
        self.kept: Kept = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """See Callback."""
        self.kept.append((trainer.counters.seconds, trainer.counters.total_timesteps, trainer.policy()))


def train(name: str, env: str, seed: int, changes: dict[str, Any], spares: Spares) -> tuple[Result, Kept, Policy]:
    """One run as ``learner.train`` sets it; its policies, and the best that was evaluated on the way."""
    config = preset(name)
    if tuned := tuned_for(name, env):
        config = with_tuned(config, tuned, env)
    config = overlay(
        overlay(config, {"env": env, "seed": seed, "evaluation": {"eval_every": None}}, "it"), changes, "it"
    )
    keep = Keep()
    with tempfile.TemporaryDirectory() as folder:
        result = Trainer(config, f"{folder}/run", name, spares=spares, callbacks=[keep]).run()
        best = Path(folder) / "run" / "best"
        return result, keep.kept, Policy.load(best) if best.exists() else result.policy


def first(kept: Kept, is_it: Callable[[Policy], bool], spacing: float = 0.0) -> dict[str, float] | None:
    """When the first policy came that is it, of those at least ``spacing`` seconds apart; None: none is."""
    looked_at = -math.inf
    for seconds, steps, policy in kept:
        if seconds - looked_at < spacing:
            continue
        looked_at = seconds
        if is_it(policy):
            return {"seconds": seconds, "steps": steps}
    return None


def tables(seed: int, spares: Spares) -> dict[str, Any]:
    """q_learning on each of the tables: when it came to the optimum, and whether it ended there."""
    found = {}
    for env in TABLES:
        model = Model(env)
        best = model.best()
        _, kept, _ = train("q_learning", env, seed, {}, spares)
        worth = functools.partial(_worth, model)
        reached = first(kept, lambda policy, best=best, worth=worth: worth(policy) > best - 5e-4)  # type: ignore[misc]
        found[env] = {"best": best, "reached": reached, "last": worth(kept[-1][2])}
    return found


def _worth(model: Model, policy: Policy) -> float:
    return model.value(greedy_actions(policy))


def solving(goals: dict[str, tuple[str, float]], seed: int, spares: Spares) -> dict[str, Any]:
    """When each algorithm had solved its environment."""
    return {
        name: _reached(train(name.split()[0], env, seed, {}, spares)[1], threshold, SPACING)
        for name, (env, threshold) in goals.items()
    }


def _reached(kept: Kept, threshold: float, spacing: float = 0.0) -> dict[str, Any]:
    """When a run's policies had solved their environment, and how fast it was."""

    def has(policy: Policy) -> bool:
        quick, *_ = fly_episodes(policy, range(SEED, SEED + QUICK_EPISODES))
        return bool(quick.mean() >= QUICK[threshold]) and bool(fly(policy, 100).mean() >= threshold)

    return {"reached": first(kept, has, spacing), "steps_per_second": kept[-1][1] / kept[-1][0]}


def sb3(name: str, seed: int, _: Spares) -> dict[str, Any]:
    """When Stable-Baselines3's algorithm had solved the same environment, by its process's CPU time: it never waits."""
    torch.set_num_threads(1)  # matrices are too small to share out
    env, threshold = {**DISCRETE, **CONTINUOUS}[name]
    envs = make_vec_env(lambda: make_gymnasium(env))
    if name == "dqn":
        model = peers.dqn_model(envs, seed, recipe.DQN_STEPS)
    elif name == "sac":
        model = peers.sac_model(envs, seed, lambda: 1 - model.num_timesteps / ZOO_STEPS)
    else:
        model = SAC("MlpPolicy", envs, learning_rate=1e-3, seed=seed, device="cpu")
    policy_of = peers.dqn_policy if name == "dqn" else peers.sac_policy
    kept: Kept = []
    seconds = 0.0
    while model.num_timesteps < SB3_STEPS[name]:
        begun = time.process_time()
        model.learn(SB3_SPACING[name], reset_num_timesteps=model.num_timesteps == 0)
        seconds += time.process_time() - begun
        kept.append((seconds, model.num_timesteps, policy_of(model, env)))
    return _reached(kept, threshold)


def minute(seed: int, spares: Spares) -> dict[str, Any]:
    """The policy that a minute of dqn says is its best, on a thousand landings."""
    result, _, best = train("dqn", "LunarLander-v3", seed, MINUTE, spares)
    returns = fly(best, LANDINGS, seed=2_000_000)
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "landed": float(np.mean(returns >= 200)),
        "steps": result.counters.total_timesteps,
    }


def main() -> None:
    """Command line."""
    options = tyro.cli(ByValue, prog="python -m tests.benchmarks.by_value", description=__doc__)
    measures: dict[str, Measure] = {
        "tables": tables,
        "discrete": functools.partial(solving, DISCRETE),
        "continuous": functools.partial(solving, CONTINUOUS),
        "minute": minute,
        **{f"sb3 {name}": functools.partial(sb3, name) for name in SB3_STEPS},
    }
    measure(RESULTS, measures, options.parts, range(FIRST_RUN, FIRST_RUN + options.seeds))


if __name__ == "__main__":
    main()
