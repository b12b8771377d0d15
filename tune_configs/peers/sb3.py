"""Stable-Baselines3's PPO, DQN and SAC as trials of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from actors.making import make_gymnasium
from actors.policy import Policy
from tune_configs import recipe
from tune_configs.peers.policies import policy_from_layers
from tune_configs.peers.run import ROW_STEPS, PeerRun, peer_seed

PPO_LAYERS = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net")
DQN_LAYERS = ("q_net.q_net.0", "q_net.q_net.2", "q_net.q_net.4")
SAC_LAYERS = ("actor.latent_pi.0", "actor.latent_pi.2", "last")
SAC_LAST = ("actor.mu", "actor.log_std")
"""Which are one layer of ours."""


def train_ppo(run: PeerRun) -> Policy:
    """PPO until the budget is used up."""
    model = ppo_model(_environments(run, recipe.N_ENVS), run.config.seed)
    _train(run, model, recipe.N_ENVS * recipe.N_STEPS)  # a whole rollout and its update, as every contestant does
    return ppo_policy(model, run.config.env)


def train_dqn(run: PeerRun) -> Policy:
    """DQN until the budget is used up."""
    steps = run.config.stop.total_timesteps or recipe.DQN_STEPS
    model = dqn_model(_environments(run, 1), run.config.seed, steps)
    _train(run, model, ROW_STEPS)
    return dqn_policy(model, run.config.env)


def train_sac(run: PeerRun) -> Policy:
    """SAC until the budget is used up."""
    model = sac_model(_environments(run, 1), run.config.seed, lambda: 1 - run.progress)
    _train(run, model, ROW_STEPS)
    return sac_policy(model, run.config.env)


def ppo_model(envs: Any, seed: int) -> Any:
    """PPO with the recipe; its environments are seeded too."""
    from stable_baselines3 import PPO

    return PPO(
        "MlpPolicy",
        envs,
        n_steps=recipe.N_STEPS,
        batch_size=recipe.BATCH_SIZE,
        n_epochs=recipe.N_EPOCHS,
        learning_rate=recipe.LEARNING_RATE,
        gamma=recipe.GAMMA,
        gae_lambda=recipe.GAE_LAMBDA,
        ent_coef=recipe.ENT_COEF,
        seed=peer_seed(seed),
        device="cpu",
    )


def dqn_model(envs: Any, seed: int, steps: int) -> Any:
    """DQN with the recipe, whose ε falls in the course of so many environment steps."""
    from stable_baselines3 import DQN

    network = {"net_arch": [*recipe.DQN_HIDDEN_SIZES]}
    model = DQN("MlpPolicy", envs, **recipe.DQN, policy_kwargs=network, seed=peer_seed(seed), device="cpu")
    schedule = model.exploration_schedule
    # What it is called with is of one ``learn``, which is a row of the log here and not the run.
    model.exploration_schedule = lambda _remaining: schedule(1 - model.num_timesteps / steps)
    return model


def sac_model(envs: Any, seed: int, remaining: Callable[[], float]) -> Any:
    """SAC with the recipe, whose learning rate falls as ``remaining`` does, from 1 to 0."""
    from stable_baselines3 import SAC

    rate = recipe.SAC["learning_rate"]
    options = {**recipe.SAC, "learning_rate": lambda _remaining: rate * remaining()}
    network = {"net_arch": [*recipe.SAC_HIDDEN_SIZES]}
    return SAC("MlpPolicy", envs, **options, policy_kwargs=network, seed=peer_seed(seed), device="cpu")


def ppo_policy(model: Any, env_id: str) -> Policy:
    """The actor as it is now."""
    return policy_from_layers(env_id, _state(model), PPO_LAYERS, "tanh")


def dqn_policy(model: Any, env_id: str) -> Policy:
    """The q-values as they are now, with the ε that it explores with."""
    epsilon = np.array([model.exploration_rate], np.float32)
    return policy_from_layers(env_id, _state(model), DQN_LAYERS, "relu", "epsilon_greedy", epsilon=epsilon)


def sac_policy(model: Any, env_id: str) -> Policy:
    """The actor as it is now."""
    state = _state(model)
    for kind in ("weight", "bias"):
        state[f"last.{kind}"] = np.concatenate([state[f"{layer}.{kind}"] for layer in SAC_LAST])
    return policy_from_layers(env_id, state, SAC_LAYERS, "relu", "squashed_gaussian")


def _state(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().numpy() for name, tensor in model.policy.state_dict().items()}


def _environments(run: PeerRun, count: int) -> Any:
    from stable_baselines3.common.env_util import make_vec_env

    # A callable, so that no render mode is set: with one, an unrendered episode gets slower and slower.
    return make_vec_env(lambda: make_gymnasium(run.config.env), n_envs=count)


def _train(run: PeerRun, model: Any, steps: int) -> None:
    """Until the budget is used up; a row of the log is of so many environment steps."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Count(BaseCallback):  # type: ignore[misc]  # Any to the type checker
        episodes = 0

        def _on_step(self) -> bool:
            self.episodes += sum("episode" in info for info in self.locals["infos"])
            return True

    count = Count()
    run.start()
    while not run.finished:
        model.learn(steps, callback=count, reset_num_timesteps=model.num_timesteps == 0)
        logged = model.logger.name_to_value
        train = {key.removeprefix("train/"): value for key, value in logged.items() if key.startswith("train/")}
        returns = [episode["r"] for episode in model.ep_info_buffer or ()]
        run.record(model.num_timesteps, count.episodes, returns, train)
    model.env.close()
