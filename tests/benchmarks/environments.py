"""Environments × presets, five seeds each, as ``learner.train`` sets them: scores, steps and seconds, beside the zoo's.

python -m tests.benchmarks.environments --seeds 5
python -m tests.benchmarks.environments --only CartPole-v1 Acrobot-v1

A score is the mean of 100 greedy Gymnasium episodes of the policy that a run ends with. The zoo's figures are those
that rl-baselines3-zoo publishes in its benchmark.md, one run each; it publishes no times: what its steps take here is
measured with Stable-Baselines3 and its settings' numbers of environments, steps, epochs and minibatches.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import tyro

from actors.environment_name import parse
from actors.environments import describe
from actors.files import write_text
from actors.making import make_gymnasium
from learner.run.config import overlay
from learner.run.evaluation import evaluate
from learner.run.presets import preset
from learner.run.run_directory import versions
from learner.run.spares import Spares
from learner.run.statistics import interquartile_mean, interval
from learner.run.trainer import Trainer
from learner.run.tuned import TUNED, with_tuned

RESULTS = Path(__file__).parent / "results" / "environments.json"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
FIRST_SEED = 70_000_000
"""Of the episodes that are scored: no training and no setting has seen them."""
FIRST_RUN = 100
"""Seed of the first run: settings were chosen on others."""
EPISODES = 100


HEAD = """# Presets on environments

What `python -m learner.train --preset PRESET --env ENVIRONMENT` comes to, with the settings that it takes by itself
for that pair (`--no-tuned` leaves them out). Written by `make bench-environments`; the runs' seeds are others than
those that settings were chosen on.

Measured on {machine}; {versions}.

A run's score is the mean of 100 greedy Gymnasium episodes of its last policy, crashes and all. IQM and its 95%
bootstrap interval are over the runs (those of five cover 90%, of three 75%: see [comparing](comparing.md)); the lowest
run stands beside them. Steps and seconds of training are medians. The zoo's column is rl-baselines3-zoo's published
PPO, one run each, often on an older version of the environment (LunarLander's v3 is v2 with faults mended, MuJoCo's v5
another than its v3). Its time is its steps at the speed of Stable-Baselines3's PPO here, with the sizes of the zoo's
settings.

| environment | preset | runs | IQM | 95% interval | lowest run | steps | seconds | the zoo's PPO | steps, time here |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


class Zoo(NamedTuple):
    """What rl-baselines3-zoo publishes for PPO."""

    mean: float
    std: float
    steps: float
    env: str
    n_envs: int
    n_steps: int
    batch_size: int
    n_epochs: int


ZOO = {
    "CartPole-v1": Zoo(500.0, 0.0, 1e5, "CartPole-v1", 8, 32, 256, 20),
    "Acrobot-v1": Zoo(-73.506, 18.201, 1e6, "Acrobot-v1", 16, 256, 64, 4),
    "MountainCar-v0": Zoo(-110.423, 19.473, 1e6, "MountainCar-v0", 16, 16, 64, 4),
    "MountainCarContinuous-v0": Zoo(88.343, 2.572, 2e4, "MountainCarContinuous-v0", 1, 8, 256, 10),
    "Pendulum-v1": Zoo(-172.225, 104.159, 1e5, "Pendulum-v1", 4, 1024, 64, 10),
    "LunarLander-v3": Zoo(242.119, 31.823, 1e6, "LunarLander-v2", 16, 1024, 64, 4),
    "LunarLanderContinuous-v3": Zoo(270.863, 32.072, 1e6, "LunarLanderContinuous-v2", 16, 1024, 64, 4),
    "BipedalWalker-v3": Zoo(213.299, 129.490, 5e6, "BipedalWalker-v3", 32, 2048, 64, 10),
    "Hopper-v5": Zoo(2410.435, 10.026, 1e6, "Hopper-v3", 1, 512, 32, 5),
    "Swimmer-v5": Zoo(281.561, 9.671, 1e6, "Swimmer-v3", 1, 2048, 64, 10),
    "HalfCheetah-v5": Zoo(5819.099, 663.530, 1e6, "HalfCheetah-v3", 1, 512, 64, 20),
    "Walker2d-v5": Zoo(3478.798, 821.708, 1e6, "Walker2d-v3", 1, 512, 32, 20),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure presets on environments; writes docs/benchmarks.md."""

    seeds: int = 5
    """Runs of each pair."""
    only: tuple[str, ...] = ()
    """Environments; none: all. Those that are left out keep the figures of an earlier measurement."""
    sb3_steps: int = 20_000
    """Steps that Stable-Baselines3 trains for, to say what the zoo's take here; 0: not measured."""


def pairs(only: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every preset and environment with settings of their own, and ppo on the one that it was made for."""
    everything = [("ppo", "LunarLander-v3"), *TUNED]
    return sorted(pair for pair in everything if not only or pair[1] in only or parse(pair[1]).id in only)


def run(name: str, env: str, seed: int, spares: Spares) -> dict[str, Any]:
    """One training, and its policy's score."""
    config = preset(name)
    if tuned := TUNED.get((name, env)):
        config = with_tuned(config, tuned, env)
    changes = {"env": env, "seed": seed, "evaluation": {"eval_every": None}}
    if (name, env) not in TUNED:
        changes["stop"] = {"total_timesteps": 500_000}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        result = Trainer(overlay(config, changes, "benchmark"), f"{folder}/run", name, spares=spares).run()
        wall = time.monotonic() - began
    score = evaluate(result.policy, EPISODES, FIRST_SEED + seed * EPISODES)
    return {
        "seed": seed,
        "steps": result.counters.total_timesteps,
        "seconds": result.counters.seconds,
        "seconds_with_start": wall,
        "mean": score["mean_reward"],
        "std": score["std_reward"],
    }


def sb3_speed(env: str, zoo: Zoo, steps: int) -> float:
    """Steps a second of Stable-Baselines3's PPO with the zoo's sizes, in one process, as the zoo trains."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(lambda: make_gymnasium(env), n_envs=zoo.n_envs)
    sizes = {
        "n_steps": zoo.n_steps,
        "batch_size": min(zoo.batch_size, zoo.n_envs * zoo.n_steps),
        "n_epochs": zoo.n_epochs,
    }
    model = PPO("MlpPolicy", envs, device="cpu", **sizes)
    model.learn(zoo.n_envs * zoo.n_steps)
    done, began = model.num_timesteps, time.monotonic()
    model.learn(steps, reset_num_timesteps=False)
    return float(model.num_timesteps - done) / (time.monotonic() - began)


def line(name: str, env: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    runs = found["runs"]
    scores = np.array([[one["mean"]] for one in runs])
    low, high = interval(scores)
    steps, seconds = (statistics.median(one[key] for one in runs) for key in ("steps", "seconds"))
    zoo, theirs = ZOO.get(env), "– | –"
    if zoo:
        theirs = f"{zoo.mean:.1f} ± {zoo.std:.1f} ({zoo.env}) | {zoo.steps:,.0f}"
        if found.get("sb3_steps_per_second"):
            theirs += f", {zoo.steps / found['sb3_steps_per_second']:,.0f} s"
    return (
        f"| {env} | {name} | {len(runs)} | {number(interquartile_mean(scores))} | {number(low)} to {number(high)} "
        f"| {number(scores.min())} | {steps:,.0f} | {seconds:.1f} | {theirs} |"
    )


def number(score: float) -> str:
    """Of three or four digits, as it says something: FrozenLake's returns are shares."""
    return f"{score:.2f}" if abs(score) < 10 else f"{score:.1f}"


def page(everything: dict[str, dict[str, Any]], about: dict[str, str]) -> str:
    """docs/benchmarks.md."""
    measured = sorted(everything, key=lambda key: key.split(" ", 1)[::-1])
    rows = [line(key.partition(" ")[0], key.partition(" ")[2], everything[key]) for key in measured]
    return HEAD.format(**about) + "\n".join(rows) + "\n"


def main() -> None:
    """Command line."""
    options = tyro.cli(Benchmark, prog="python -m tests.benchmarks.environments", description=__doc__)
    logging.getLogger("touchdown").setLevel(logging.ERROR)
    machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
    about = {"machine": machine, "versions": ", ".join(f"{name} {version}" for name, version in versions().items())}
    everything: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["pairs"] if RESULTS.exists() else {}
    spares = Spares()
    for name, env in pairs(options.only):
        describe(env)
        runs = [run(name, env, FIRST_RUN + i, spares) for i in range(options.seeds)]
        found: dict[str, Any] = {"runs": runs}
        if options.sb3_steps and env in ZOO:
            found["sb3_steps_per_second"] = sb3_speed(env, ZOO[env], options.sb3_steps)
        everything[f"{name} {env}"] = found
        print(line(name, env, found), flush=True)
        write_text(RESULTS, json.dumps({"about": about, "pairs": everything}, indent=2) + "\n")
        write_text(PAGE, page(everything, about))


if __name__ == "__main__":
    main()
