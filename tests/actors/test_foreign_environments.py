"""Environments that nobody here wrote, as people name them: flown, learned from, and flown again."""

from __future__ import annotations

import math

import pytest
import torch

from actors.check_env import try_out
from actors.environments import describe
from actors.errors import UserError
from actors.evaluation import fly_episodes
from actors.rollout import Rollout
from actors.vectors import make_environments
from tests.learner.learners import make_learner

torch.set_num_threads(1)  # as learners do

FOREIGN = {
    "highway-env, cars on a table": "highway_env:highway-fast-v0(config={'duration': 4, 'vehicles_count': 5})",
    "highway-env, parking": "highway_env:parking-v0",
    "MiniGrid, flat": "minigrid:MiniGrid-Empty-5x5-v0 | minigrid.wrappers:FlatObsWrapper",
    "Flappy Bird": "flappy_bird_gymnasium:FlappyBird-v0(use_lidar=False)",
    "MO-Gymnasium, rewards weighed": "mo_gymnasium:mo-mountaincar-v0 | mo_gymnasium.wrappers:LinearReward",
    "AnyTrading": "gym_anytrading:forex-v0",
    "Robotics, a hand that reaches": "gymnasium_robotics:FetchReach-v4",
    "Robotics, a maze": "gymnasium_robotics:PointMaze_UMaze-v3",
    "MuJoCo": "Hopper-v5",
    "PettingZoo, two players": "tests.actors.two_players:ConnectFour-v0",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("env_id", FOREIGN.values(), ids=FOREIGN)
def test_it_is_flown_and_learned_from(env_id: str) -> None:
    try_out(env_id, 20)
    info = describe(env_id)
    learner = make_learner(info.policy_spec(hidden_sizes=(16,)))
    rollout = Rollout(make_environments(env_id, 2, 0, "gymnasium"), 0)
    for _ in range(2):
        policy, metrics = learner.update(rollout.fragments(learner.policy(), 16))
        assert all(math.isfinite(value) for value in metrics.values())
    returns, lengths, _ = fly_episodes(policy, [3], max_episode_steps=30)
    assert math.isfinite(returns[0])
    assert lengths[0] >= 1


def test_words_wait_for_a_network_in_one_line() -> None:
    with pytest.raises(UserError, match="minigrid:MiniGrid-Empty-5x5-v0 has observations") as error:
        describe("minigrid:MiniGrid-Empty-5x5-v0")
    assert "\n" not in str(error.value)
    assert describe("minigrid:MiniGrid-Empty-5x5-v0 | minigrid.wrappers:ImgObsWrapper").observation.shape == (7, 7, 3)
