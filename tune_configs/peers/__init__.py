"""Other libraries' algorithms as trials of a comparison: their settings, our environments, budget and evaluation.

A peer has no checkpoints here: theirs are pickles, which we do not load. A run that was cut short starts again.
"""

from tune_configs.peers.rllib import ppo_config as rllib_config
from tune_configs.peers.rllib import ppo_policy as rllib_policy
from tune_configs.peers.sb3 import ppo_model as sb3_model
from tune_configs.peers.sb3 import ppo_policy as sb3_policy

__all__ = ["rllib_config", "rllib_policy", "sb3_model", "sb3_policy"]  # what tests/benchmarks times
