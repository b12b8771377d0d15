"""Learning by value, timed: who solves LunarLander when, the best policy of a minute, and tables to the exact optimum.

python -m tests.benchmarks.by_value --seeds 5
python -m tests.benchmarks.by_value --parts tables --seeds 5

The runs' seeds are others than those that settings were chosen on. A run has solved an environment with the first of
its policies whose 100 greedy Gymnasium episodes average the threshold (see ``solving``); a table has with the first
policy that is worth the best stationary one, worked out from the environment's transitions.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from actors.evaluation import fly_episodes
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
Kept = list[tuple[float, int, Policy]]
"""(seconds of training, steps, policy) of each update."""


@dataclasses.dataclass(frozen=True)
class ByValue:
    """Measure learning by value; writes tests/benchmarks/results/by_value.json."""

    seeds: int = 5
    """Runs of each."""
    parts: tuple[str, ...] = ("tables", "discrete", "continuous", "minute")
    """Which."""


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
    found = {}
    for name, (env, threshold) in goals.items():
        _, kept, _ = train(name.split()[0], env, seed, {}, spares)

        def has(policy: Policy, threshold: float = threshold) -> bool:
            quick, *_ = fly_episodes(policy, range(SEED, SEED + QUICK_EPISODES))
            return bool(quick.mean() >= QUICK[threshold]) and bool(fly(policy, 100).mean() >= threshold)

        found[name] = {"reached": first(kept, has, SPACING), "steps_per_second": kept[-1][1] / kept[-1][0]}
    return found


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
    }
    measure(RESULTS, measures, options.parts, range(FIRST_RUN, FIRST_RUN + options.seeds))


if __name__ == "__main__":
    main()
