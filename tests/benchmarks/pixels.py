"""Learning from pictures, timed: when Doom's first scenario is solved, and steps for a CPU-second beside SB3's PPO.

python -m tests.benchmarks.pixels --seeds 5
python -m tests.benchmarks.pixels --parts speed

A run has solved VizdoomBasic-v1 when a policy of it has flown 100 greedy episodes on Gymnasium with a mean of 75, and
Catch-v0 with one of 0.95, as ``--target-return`` has it; that policy then flies 100 other episodes. Speeds are of all
processes together, in the second half of a run: environments, learning, and Ray. Beside them are steps for a
second of the clock, in which SB3 flies or learns, and we do both.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import tyro

from actors.making import make_gymnasium
from actors.trunks import TRUNKS, read_trunk
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from tests.benchmarks.by_value import FIRST_RUN, train
from tests.benchmarks.measures import Measure, measure
from tests.benchmarks.solving import fly

RESULTS = Path(__file__).parent / "results" / "pixels.json"
DOOM = preset("doom").env
SOLVED = {"doom": 75.0, "Catch-v0": 0.95}
SPEED_STEPS = {"doom": 61_440, "atari": 16_384}


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Measure learning from pictures; writes tests/benchmarks/results/pixels.json."""

    seeds: int = 5
    """Runs of each."""
    parts: tuple[str, ...] = ("doom", "catch", "speed")
    """Which."""


def solving(name: str, env: str, threshold: float, seed: int, spares: Spares) -> dict[str, Any]:
    """When a preset had solved an environment, the evaluations on the way included."""
    result, _, _ = train(name, env, seed, {"stop": {"target_return": threshold}}, spares)
    found = {"seconds": result.counters.seconds, "steps": result.counters.total_timesteps}
    return {"reached": found if result.target_reached else None, "score": float(fly(result.policy, 100).mean())}


def cpu_seconds() -> float:
    """Of this process and all that it started."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


class Clock(Callback):
    """Notes CPU-seconds, seconds and steps at each update."""

    def __init__(self) -> None:
        self.noted: list[tuple[float, float, int]] = []

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """See Callback."""
        self.noted.append((cpu_seconds(), time.perf_counter(), trainer.counters.total_timesteps))


def ours(config: TrainConfig) -> dict[str, float]:
    """Steps for a second, of the second half."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, f"{folder}/run", callbacks=[clock]).run()
    return _speeds(clock.noted[len(clock.noted) // 2], clock.noted[-1])


def _speeds(begun: tuple[float, float, int], ended: tuple[float, float, int]) -> dict[str, float]:
    (cpu, seconds, before), (cpu_then, seconds_then, steps) = begun, ended
    return {"cpu": (steps - before) / (cpu_then - cpu), "clock": (steps - before) / (seconds_then - seconds)}


def _beside(mine: dict[str, float], sb3: dict[str, float]) -> dict[str, dict[str, float]]:
    return {key: {"ours": mine[key], "sb3": sb3[key], "ratio": mine[key] / sb3[key]} for key in mine}


def peer(config: TrainConfig, trunk: str, threads: int = 1) -> Any:
    """SB3's PPO with the same layers and settings, its returns noted; torch computes on so many threads."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    torch.set_num_threads(threads)

    class Trunk(BaseFeaturesExtractor):  # type: ignore[misc]
        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, config.network.hidden_sizes[0])
            layers: list[Any] = []
            channels = observation_space.shape[0]
            for layer in read_trunk(trunk):
                layers += [torch.nn.Conv2d(channels, layer.filters, layer.kernel, layer.stride), torch.nn.ReLU()]
                channels = layer.filters
            self.trunk = torch.nn.Sequential(*layers, torch.nn.Flatten())
            size = self.trunk(torch.zeros(1, *observation_space.shape)).shape[1]
            self.last = torch.nn.Sequential(torch.nn.Linear(size, config.network.hidden_sizes[0]), torch.nn.ReLU())

        def forward(self, observations: Any) -> Any:
            return self.last(self.trunk(observations))

    def make() -> Any:
        env = make_gymnasium(config.env)
        shape = env.observation_space.shape or ()
        if len(shape) == 3:
            return env
        return gymnasium.wrappers.ReshapeObservation(env, (1, *shape))

    algorithm: Any = config.algorithm
    return PPO(
        "CnnPolicy",
        VecMonitor(DummyVecEnv([make] * config.rollout.n_envs)),
        n_steps=config.rollout.n_steps or 0,
        batch_size=algorithm.batch_size,
        n_epochs=algorithm.n_epochs,
        learning_rate=config.optimisation.learning_rate,
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
        ent_coef=algorithm.ent_coef,
        policy_kwargs={"features_extractor_class": Trunk, "net_arch": []},
        seed=config.seed,
        device="cpu",
    )


def theirs(config: TrainConfig, trunk: str, steps: int, threads: int = 1) -> dict[str, float]:
    """Steps for a second of SB3's PPO, of the second half."""
    model = peer(config, trunk, threads)
    model.learn(steps // 2)
    begun = cpu_seconds(), time.perf_counter(), model.num_timesteps
    model.learn(steps // 2, reset_num_timesteps=False)
    speeds = _speeds(begun, (cpu_seconds(), time.perf_counter(), model.num_timesteps))
    model.env.close()
    return speeds


def speed(seed: int, spares: Spares) -> dict[str, Any]:
    """Both on Doom and on Pong: beside SB3 on one thread, its fastest for a CPU-second, and on all, as it comes."""
    found = {}
    for name, trunk in (("doom", TRUNKS["small"]), ("atari", TRUNKS["nature"])):
        budget = {"stop": {"total_timesteps": SPEED_STEPS[name]}, "evaluation": {"eval_every": None}, "seed": seed}
        config = overlay(preset(name), budget, "it")
        mine, sb3 = ours(config), theirs(config, trunk, SPEED_STEPS[name])
        found[name] = _beside(mine, sb3)
        found[f"{name}, SB3 as it comes"] = _beside(mine, theirs(config, trunk, SPEED_STEPS[name], os.cpu_count() or 1))
    half = ours(overlay(config, {"optimisation": {"bfloat16": True}}, "it"))
    found["atari in bfloat16"] = _beside(half, sb3)
    return found


def main() -> None:
    """Command line."""
    options = tyro.cli(Pixels, prog="python -m tests.benchmarks.pixels", description=__doc__)
    measures: dict[str, Measure] = {
        "doom": functools.partial(solving, "doom", DOOM, SOLVED["doom"]),
        "catch": functools.partial(solving, "ppo", "Catch-v0", SOLVED["Catch-v0"]),
        "speed": speed,
    }
    measure(RESULTS, measures, options.parts, range(FIRST_RUN, FIRST_RUN + options.seeds))


if __name__ == "__main__":
    main()
