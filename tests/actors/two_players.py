"""Connect four of PettingZoo against a player who moves at random: a game of two as an environment of one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from pettingzoo.classic import connect_four_v3


class ConnectFour(gymnasium.Env[Any, Any]):
    """The first player's moves; observations are the board and which columns are free, rewards 1 for a win."""

    def __init__(self) -> None:
        self._game = connect_four_v3.env()
        self._game.reset()
        self._me = self._game.possible_agents[0]
        board = gymnasium.spaces.Box(0, 1, (84,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"board": board, "action_mask": gymnasium.spaces.MultiBinary(7)})
        self.action_space = gymnasium.spaces.Discrete(7)

    def _seen(self) -> dict[str, Any]:
        seen = self._game.observe(self._me)
        return {"board": seen["observation"].astype(np.float32).ravel(), "action_mask": seen["action_mask"]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._game.reset(seed=seed)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self._seen()["action_mask"][action], "a column that is full"
        self._game.step(int(action))
        if not any(self._game.terminations.values()):
            free = np.flatnonzero(self._game.observe(self._game.agent_selection)["action_mask"])
            self._game.step(int(self.np_random.choice(free)))
        is_over = any(self._game.terminations.values())
        return self._seen(), float(self._game.rewards[self._me]), is_over, False, {}


gymnasium.register("ConnectFour-v0", ConnectFour)
