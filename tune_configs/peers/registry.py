"""Peers by name: what each needs, what it can fly, and who trains it."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

from actors.action_bounds import ActionBounds
from actors.environments import EnvironmentInfo
from actors.errors import UserError
from actors.policy import Policy
from actors.spaces import Box, Discrete, Space
from tune_configs.peers import rllib, sb3
from tune_configs.peers.run import PeerRun


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another library's algorithm."""

    package: str
    """What has to be installed."""
    train: Callable[[PeerRun], Policy]
    """Trains until the budget is used up; gives the final policy."""
    takes: Callable[[Space], bool]
    """Whether it learns such actions."""
    actions: str
    """The actions that it learns, in words."""


def _counted(action: Space) -> bool:
    return isinstance(action, Discrete) and not action.start


def _bounded(action: Space) -> bool:
    return isinstance(action, Box) and ActionBounds(action.low, action.high, True).all_scaled


_DISCRETE, _CONTINUOUS = "discrete actions that count from 0", "continuous actions between bounds"

PEERS = {
    "rllib": Peer("ray.rllib", rllib.train_ppo, _counted, _DISCRETE),
    "sb3": Peer("stable_baselines3", sb3.train_ppo, _counted, _DISCRETE),
    "rllib-dqn": Peer("ray.rllib", rllib.train_dqn, _counted, _DISCRETE),
    "sb3-dqn": Peer("stable_baselines3", sb3.train_dqn, _counted, _DISCRETE),
    "sb3-sac": Peer("stable_baselines3", sb3.train_sac, _bounded, _CONTINUOUS),
}
"""The first of a library is its PPO."""


def require_peer(name: str, environment: EnvironmentInfo) -> None:
    """Refuse a peer that is not installed or cannot fly an environment.

    Raises:
        UserError: says how to install it, or what it would fly.
    """
    peer = PEERS[name]
    try:
        found = importlib.util.find_spec(peer.package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UserError(f"peer {name!r} needs {peer.package}, which is not installed: pip install 'touchdown[peers]'")
    seen, action = environment.observation, environment.action
    if not (isinstance(seen, Box) and len(seen.shape) == 1):
        raise UserError(
            f"peers see only vectors of numbers, and observations of {environment.env_id} are {seen.in_words()}"
        )
    if not peer.takes(action):
        raise UserError(
            f"peer {name!r} learns only {peer.actions}, and those of {environment.env_id} are {action.in_words()}"
        )


def train_peer(name: str, run: PeerRun) -> Policy:
    """Train that peer; returns its final policy. All rows are written then.

    Raises:
        OSError: the storage did not take them for minutes.
    """
    import torch

    torch.set_num_threads(1)  # matrices are too small to share out
    try:
        policy = PEERS[name].train(run)
        run.finish()
        return policy
    finally:
        run.close()
