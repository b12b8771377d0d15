"""Catch: a ball falls down a board, and a paddle is moved under it; Osband et al. 2019 (arXiv:1908.03568)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from actors.episode import Array


class Catch(gymnasium.Env[Array, np.int64]):
    """bsuite's Catch, as EnvPool has it: a reward of 1 for a ball that is caught, −1 for one that is not.

    Observations are the board, [height, width] float32, 1 where the ball is and, in the last row, where the paddle is.
    The ball begins in a random column of the first row and falls a row a step, the paddle in the middle; actions move
    it left, not at all, or right. An episode is ``height`` − 1 steps.
    """

    def __init__(self, height: int = 10, width: int = 5) -> None:
        self._height, self._width = height, width
        self.observation_space = gymnasium.spaces.Box(0, 1, (height, width), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:  # noqa: ARG002
        """Drop another ball."""
        super().reset(seed=seed)
        self._row, self._column, self._paddle = 0, int(self.np_random.integers(self._width)), self._width // 2
        return self._board(), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move the paddle, and let the ball fall."""
        self._paddle = min(max(self._paddle + int(action) - 1, 0), self._width - 1)
        self._row += 1
        is_over = self._row == self._height - 1
        reward = (1.0 if self._paddle == self._column else -1.0) if is_over else 0.0
        return self._board(), reward, is_over, False, {}

    def _board(self) -> Array:
        board = np.zeros((self._height, self._width), np.float32)
        board[self._row, self._column] = board[-1, self._paddle] = 1
        return board
