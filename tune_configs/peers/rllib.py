"""RLlib's PPO and DQN as trials of a comparison, on its new API stack; initial weights are as RLlib draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from actors.making import make_gymnasium
from actors.policy import Policy
from tune_configs import recipe
from tune_configs.peers.policies import policy_from_layers
from tune_configs.peers.run import ROW_STEPS, PeerRun, peer_seed

PPO_LAYERS = ("encoder.actor_encoder.net.mlp.0", "encoder.actor_encoder.net.mlp.2", "pi.net.mlp.0")
DQN_LAYERS = ("encoder.net.mlp.0", "encoder.net.mlp.2", "af.net.mlp.0")


def train_ppo(run: PeerRun) -> Policy:
    """PPO until the budget is used up: a learner in this process and one environment runner beside it."""
    config = ppo_config(run.config.env, run.config.seed).env_runners(
        num_env_runners=1,
        num_envs_per_env_runner=recipe.N_ENVS,
        num_cpus_per_env_runner=run.config.fleet.cpus_per_actor,
        sample_timeout_s=3600.0,  # by default a rollout that takes more than a minute is thrown away
    )

    def figures(learned: Mapping[str, Any]) -> dict[str, float]:
        return {
            "policy_gradient_loss": float(learned["policy_loss"]),
            "value_loss": float(learned["vf_loss"]),
            "entropy_loss": -float(learned["entropy"]),
        }

    return _train(run, config, figures, ppo_policy)


def train_dqn(run: PeerRun) -> Policy:
    """DQN until the budget is used up, all of it in this process: it learns after every fourth step."""
    steps = run.config.stop.total_timesteps or recipe.DQN_STEPS
    config = dqn_config(run.config.env, run.config.seed, steps)

    def figures(learned: Mapping[str, Any]) -> dict[str, float]:
        names = {"qf_loss": "loss", "qf_mean": "q_values", "td_error_mean": "td_error"}
        return {ours: float(learned[theirs]) for theirs, ours in names.items()}

    return _train(run, config, figures, dqn_policy)


def ppo_config(env_id: str, seed: int, minibatch_size: int = recipe.BATCH_SIZE) -> Any:
    """PPO with the recipe."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    return (
        PPOConfig()
        .environment(env_id)
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
        .debugging(seed=peer_seed(seed))
    )


def dqn_config(env_id: str, seed: int, steps: int) -> Any:
    """DQN with the recipe, whose ε falls in the course of so many environment steps."""
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    exploration_steps = max(1, round(recipe.DQN["exploration_fraction"] * steps))
    return (
        DQNConfig()
        .environment(env_id)
        .learners(num_learners=0)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1, rollout_fragment_length=recipe.DQN["train_freq"])
        .reporting(min_sample_timesteps_per_iteration=ROW_STEPS)
        .training(
            lr=recipe.DQN["learning_rate"],
            gamma=recipe.DQN["gamma"],
            train_batch_size_per_learner=recipe.DQN["batch_size"],
            training_intensity=recipe.DQN["batch_size"],  # steps learned from for each that is flown: one minibatch
            num_steps_sampled_before_learning_starts=recipe.DQN["learning_starts"],
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": recipe.DQN["buffer_size"]},
            target_network_update_freq=recipe.DQN["target_update_interval"],
            epsilon=[(0, 1.0), (exploration_steps, recipe.DQN["exploration_final_eps"])],
            double_q=False,
            dueling=False,
            grad_clip=recipe.DQN["max_grad_norm"],
            grad_clip_by="global_norm",
        )
        .rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=list(recipe.DQN_HIDDEN_SIZES), fcnet_activation="relu")
        )
        .debugging(seed=peer_seed(seed))
    )


def ppo_policy(algorithm: Any, env_id: str) -> Policy:
    """The actor as the learner has it now."""
    return policy_from_layers(env_id, _state(algorithm), PPO_LAYERS, "tanh")


def dqn_policy(algorithm: Any, env_id: str) -> Policy:
    """The q-values as the learner has them now, with the ε that it explores with."""
    schedule = algorithm.env_runner.module.epsilon_schedule
    epsilon = np.array([schedule.get_current_value()], np.float32)
    return policy_from_layers(env_id, _state(algorithm), DQN_LAYERS, "relu", "epsilon_greedy", epsilon=epsilon)


def _state(algorithm: Any) -> Mapping[str, Any]:
    state: Mapping[str, Any] = algorithm.learner_group.get_weights()["default_policy"]
    return state


def _train(
    run: PeerRun,
    config: Any,
    figures: Callable[[Mapping[str, Any]], dict[str, float]],
    policy_of: Callable[[Any, str], Policy],
) -> Policy:
    """Until the budget is used up; ``figures`` are those of what the learner tells that go into the log."""
    from ray.tune.registry import register_env

    env_id = run.config.env
    register_env(env_id, lambda _context: make_gymnasium(env_id))
    algorithm = config.build_algo()
    run.start()
    while not run.finished:
        result = algorithm.train()
        sampled = result["env_runners"]
        episodes = int(sampled.get("num_episodes_lifetime", 0))
        mean = float(sampled.get("episode_return_mean", math.nan))  # of the last 100 episodes
        returns = [mean] * min(episodes, run.config.stop.window) if math.isfinite(mean) else []
        steps = int(sampled["num_env_steps_sampled_lifetime"])
        run.record(steps, episodes, returns, figures(result["learners"]["default_policy"]))
    policy = policy_of(algorithm, env_id)
    algorithm.stop()
    return policy
