"""Stable-Baselines3 PPO with the Deep RL course's recipe, timed.

python -m tests.benchmarks.peers.sb3_ppo --render-mode none --snapshots runs/sb3 --out runs/sb3.json
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from tests.benchmarks.recorder import Recorder, add_run_arguments
from tune_configs import recipe
from tune_configs.peers.sb3 import ppo_model, ppo_policy

TORCH_THREADS = 1
"""The faster setting on two cores: matrices of 64 are too small to share out."""


class RecordIterations(BaseCallback):  # type: ignore[misc]  # Any to the type checker
    """Records every finished iteration: Stable-Baselines3 calls `_on_rollout_start` right after an update."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == 0:
            self._recorder.start()
            return
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        mean_return = float(np.mean(returns)) if returns else float("nan")
        self._recorder.record(self.num_timesteps, mean_return, ppo_policy(self.model, recipe.ENV_ID))

    def _on_step(self) -> bool:
        return not self._recorder.finished


def train(render_mode: str | None, seed: int, recorder: Recorder) -> dict[str, Any]:
    """Train until the recorder has had enough; returns what describes the run.

    `render_mode` "rgb_array" is as the course runs it, since `make_vec_env` sets that where nothing is said.
    The engines then leave particles that an unrendered environment never clears away; with None they do not.
    """
    torch.set_num_threads(TORCH_THREADS)
    env = make_vec_env(recipe.ENV_ID, n_envs=recipe.N_ENVS, env_kwargs={"render_mode": render_mode})
    model = ppo_model(env, seed)
    model.learn(total_timesteps=sys.maxsize, callback=RecordIterations(recorder))
    env.close()
    return {
        "peer": "sb3",
        "version": stable_baselines3.__version__,
        "env": recipe.ENV_ID,
        "render_mode": render_mode,
        "seed": seed,
        "torch_threads": TORCH_THREADS,
        "n_envs": recipe.N_ENVS,
        "batch_size": recipe.BATCH_SIZE,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train Stable-Baselines3 PPO on LunarLander and time it.")
    parser.add_argument(
        "--render-mode",
        choices=["none", "rgb_array"],
        default="rgb_array",
        help="rgb_array: as the course runs it; none: the faster way",
    )
    add_run_arguments(parser)
    options = parser.parse_args()
    recorder = Recorder(options.snapshots, options.max_seconds, options.max_steps)
    render_mode = None if options.render_mode == "none" else options.render_mode
    recorder.write(options.out, train(render_mode, options.seed, recorder))


if __name__ == "__main__":
    main()
