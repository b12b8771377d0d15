"""Peers' settings, in Stable-Baselines3's names: the Deep RL course's for PPO, RL Baselines3 Zoo's for DQN and SAC."""

from typing import Any

ENV_ID = "LunarLander-v3"
N_ENVS = 16
N_STEPS = 1024
N_EPOCHS = 4
BATCH_SIZE = 64
LEARNING_RATE = 3e-4
GAMMA = 0.999
GAE_LAMBDA = 0.98
ENT_COEF = 0.01

# Not in the recipe: Stable-Baselines3's defaults, which it relies on.
CLIP_RANGE = 0.2
VF_COEF = 0.5
MAX_GRAD_NORM = 0.5
HIDDEN_SIZES = (64, 64)

DQN: dict[str, Any] = {
    "learning_rate": 6.3e-4,
    "batch_size": 128,
    "buffer_size": 50_000,
    "learning_starts": 0,
    "gamma": 0.99,
    "target_update_interval": 250,
    "train_freq": 4,
    "gradient_steps": -1,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
    "max_grad_norm": 10,  # Stable-Baselines3's default
}
"""The zoo's for LunarLander, in one environment: a gradient step for every step, four at a time. Stable-Baselines3's
DQN is neither double nor dueling and draws uniformly; RLlib's defaults, double, dueling and by priority, are off."""
DQN_HIDDEN_SIZES = (256, 256)
DQN_STEPS = 100_000
"""What the zoo trains for: exploration takes its share of these where a budget is of episodes only."""

SAC: dict[str, Any] = {
    "learning_rate": 7.3e-4,  # falls to zero at the end of the budget
    "batch_size": 256,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "ent_coef": "auto",
    "gamma": 0.99,
    "tau": 0.01,
    "train_freq": 1,
    "gradient_steps": 1,
}
"""The zoo's for LunarLanderContinuous, which it trains for 500,000 steps in one environment."""
SAC_HIDDEN_SIZES = (400, 300)
