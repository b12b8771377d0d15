"""The PPO settings of the Deep RL course's LunarLander unit, in Stable-Baselines3's names."""

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
