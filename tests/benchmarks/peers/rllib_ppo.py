"""RLlib PPO (new API stack) with the Deep RL course's recipe, timed.

Initial weights are as RLlib draws them; all else is the recipe, and no render mode is set.

python -m tests.benchmarks.peers.rllib_ppo --minibatch-size 64 --snapshots runs/rllib --out runs/rllib.json
"""

from __future__ import annotations

import argparse
from typing import Any

import ray
import torch

from tests.benchmarks.recorder import Recorder, add_run_arguments
from tune_configs import recipe
from tune_configs.peers.rllib import ppo_config, ppo_policy

CORES = 2
ENV_RUNNERS = 2
ENVS_PER_RUNNER = 16
"""Two runners of 16 are faster than two of 8, one of 16 or none; a batch stays the recipe's 16,384 steps."""

TORCH_THREADS = 1
"""Of the learner; more wait for each other at every small operation, and for the environment runners."""


def train(minibatch_size: int, seed: int, recorder: Recorder) -> dict[str, Any]:
    """Train until the recorder has had enough; returns what describes the run."""
    torch.set_num_threads(TORCH_THREADS)
    ray.init("local", num_cpus=CORES, include_dashboard=False)
    config = ppo_config(recipe.ENV_ID, seed, minibatch_size)
    config.env_runners(num_env_runners=ENV_RUNNERS, num_envs_per_env_runner=ENVS_PER_RUNNER)
    algorithm = config.build_algo()
    recorder.start()
    while not recorder.finished:
        sampled = algorithm.train()["env_runners"]
        recorder.record(
            int(sampled["num_env_steps_sampled_lifetime"]),
            float(sampled.get("episode_return_mean", float("nan"))),
            ppo_policy(algorithm, recipe.ENV_ID),
        )
    algorithm.stop()
    ray.shutdown()
    return {
        "peer": "rllib",
        "version": ray.__version__,
        "env": recipe.ENV_ID,
        "render_mode": None,
        "seed": seed,
        "cores": CORES,
        "env_runners": ENV_RUNNERS,
        "torch_threads": TORCH_THREADS,
        "n_envs": ENV_RUNNERS * ENVS_PER_RUNNER,
        "batch_size": minibatch_size,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train RLlib PPO on LunarLander and time it.")
    parser.add_argument(
        "--minibatch-size", type=int, default=recipe.BATCH_SIZE, help="steps per gradient; the recipe's is 64"
    )
    add_run_arguments(parser)
    options = parser.parse_args()
    recorder = Recorder(options.snapshots, options.max_seconds, options.max_steps)
    recorder.write(options.out, train(options.minibatch_size, options.seed, recorder))


if __name__ == "__main__":
    main()
