"""RLlib PPO (new API stack) with the Deep RL course's recipe, timed.

Initial weights are as RLlib draws them; all else is the recipe, and no render mode is set.

python -m tests.benchmarks.peers.rllib_ppo --minibatch-size 64 --snapshots runs/rllib --out runs/rllib.json
"""

from __future__ import annotations

import argparse
from typing import Any

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from actors.policy import Policy
from tests.benchmarks import recipe
from tests.benchmarks.recorder import Recorder, add_run_arguments, policy_from_layers

CORES = 2
ENV_RUNNERS = 2
ENVS_PER_RUNNER = 16
"""Two runners of 16 are faster than two of 8, one of 16 or none; a batch stays the recipe's 16,384 steps."""

TORCH_THREADS = 1
"""Of the learner; more wait for each other at every small operation, and for the environment runners."""

ACTOR_LAYERS = ("encoder.actor_encoder.net.mlp.0", "encoder.actor_encoder.net.mlp.2", "pi.net.mlp.0")


def ppo_config(minibatch_size: int, seed: int) -> PPOConfig:
    """The recipe in RLlib's names."""
    return (
        PPOConfig()
        .environment(recipe.ENV_ID)
        .env_runners(num_env_runners=ENV_RUNNERS, num_envs_per_env_runner=ENVS_PER_RUNNER)
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=recipe.N_ENVS * recipe.N_STEPS,
            minibatch_size=minibatch_size,
            num_epochs=recipe.N_EPOCHS,
            lr=recipe.LEARNING_RATE,
            gamma=recipe.GAMMA,
            lambda_=recipe.GAE_LAMBDA,
            entropy_coeff=recipe.ENT_COEF,
            clip_param=recipe.CLIP_RANGE,
            vf_loss_coeff=recipe.VF_COEF,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=recipe.MAX_GRAD_NORM,
            grad_clip_by="global_norm",
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(recipe.HIDDEN_SIZES), fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .debugging(seed=seed)
    )


def snapshot(algorithm: Algorithm) -> Policy:
    """The actor as the learner has it now."""
    assert algorithm.learner_group is not None
    weights = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    return policy_from_layers(weights, ACTOR_LAYERS)


def train(minibatch_size: int, seed: int, recorder: Recorder) -> dict[str, Any]:
    """Train until the recorder has had enough; returns what describes the run."""
    torch.set_num_threads(TORCH_THREADS)
    ray.init("local", num_cpus=CORES, include_dashboard=False)
    algorithm = ppo_config(minibatch_size, seed).build_algo()
    recorder.start()
    while not recorder.finished:
        sampled = algorithm.train()["env_runners"]
        recorder.record(
            int(sampled["num_env_steps_sampled_lifetime"]),
            float(sampled.get("episode_return_mean", float("nan"))),
            snapshot(algorithm),
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
