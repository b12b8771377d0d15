"""Touchdown's own PPO, timed like its peers: with the course's recipe, or with the preset's settings.

python -m tests.benchmarks.ours --settings recipe --snapshots runs/bench --out runs/bench.json
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path

from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.trainer import Trainer
from tests.benchmarks.recorder import Recorder, add_run_arguments
from tune_configs import recipe


def course_recipe() -> TrainConfig:
    """The peers' network and PPO settings: one rollout is the recipe's 16,384 steps."""
    changes = {
        "env": recipe.ENV_ID,
        "rollout": {"n_envs": recipe.N_ENVS, "n_steps": recipe.N_STEPS},
        "network": {"hidden_sizes": recipe.HIDDEN_SIZES, "activation": "tanh", "normalize_observations": False},
        "algorithm": {
            "n_epochs": recipe.N_EPOCHS,
            "batch_size": recipe.BATCH_SIZE,
            "gamma": recipe.GAMMA,
            "gae_lambda": recipe.GAE_LAMBDA,
            "ent_coef": recipe.ENT_COEF,
            "clip_range": recipe.CLIP_RANGE,
            "vf_coef": recipe.VF_COEF,
            "reward_scale": 1.0,
        },
        "optimisation": {
            "learning_rate": recipe.LEARNING_RATE,
            "max_grad_norm": recipe.MAX_GRAD_NORM,
            "schedule": "constant",
        },
    }
    return overlay(preset("ppo"), changes, "recipe")


class RecordUpdates(Callback):
    """Keeps each update's policy, and ends the run when the recorder has had enough."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """See Callback."""
        counters = trainer.counters
        mean_return = metrics.get("rollout/ep_rew_mean", math.nan)
        self._recorder.record(counters.total_timesteps, mean_return, trainer.policy(), counters.seconds)
        if self._recorder.finished:
            trainer.stop("enough")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train Touchdown's PPO on LunarLander and time it.")
    parser.add_argument("--settings", choices=["recipe", "preset"], default="preset", help="the peers' or our best")
    parser.add_argument("--target-return", type=float, default=None, help="stop at this mean training return")
    add_run_arguments(parser)
    options = parser.parse_args()
    config = course_recipe() if options.settings == "recipe" else preset("ppo")
    stop = {"total_timesteps": options.max_steps, "max_seconds": None, "target_return": options.target_return}
    config = overlay(config, {"env": recipe.ENV_ID, "seed": options.seed, "stop": stop}, "benchmark")
    recorder = Recorder(options.snapshots, options.max_seconds, options.max_steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder) / "run", "ppo", callbacks=[RecordUpdates(recorder)])
        trainer.run()
    recorder.write(options.out, {"peer": "touchdown", **dataclasses.asdict(config)})


if __name__ == "__main__":
    main()
