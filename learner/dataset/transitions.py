"""Recorded steps with their n-step returns and where these lead, as columns that values are learned from."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from actors import trees
from actors.distribution import Distribution
from actors.masks import allowed
from actors.spec import PolicySpec
from actors.trees import Array, Tree
from learner.dataset.dataset import Dataset
from learner.dataset.windows import from_parts, observed
from learner.memory.packing import as_learned


class Transitions:
    """Reads steps; sums never go beyond an episode, and at its end there is a value only where a time limit cut it.

    Args:
        dataset: the episodes.
        spec: of the policy that learns from them.
        distribution: of that policy.
        n_step: rewards of a sum; fewer where the episode ends.
        gamma: discount a step.
        reward_scale: rewards are multiplied by it.
        reward_clip: rewards beyond ± this count as this.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: PolicySpec,
        distribution: Distribution,
        n_step: int,
        gamma: float,
        reward_scale: float,
        reward_clip: float,
    ) -> None:
        self._dataset, self._spec, self._distribution = dataset, spec, distribution
        self._scale, self._clip = reward_scale, reward_clip
        self._n_step = min(n_step, int(dataset.lengths.max()))
        self._discounts = gamma ** np.arange(self._n_step + 1)

    def read(self, episodes: Array, firsts: Array) -> dict[str, Array]:
        """The steps ``firsts`` of W episodes, by name, [W, …] each.

        observations are as of ``Windows``; actions as the policy's distribution samples them; returns
        Σ_{k < h} γ^k r_{t+k} of h = n steps, or those that are left; next_observations those after them; discounts γ^h,
        and 0 at a terminal state; allows and next_allows what a mask allows.

        Args:
            episodes: [W] int64, of the dataset.
            firsts: [W] int64, each less than that episode's length.
        """

        def of_part(part: int, mine: Array) -> tuple[Array, dict[str, Array]]:
            return mine, self._of_part(part, episodes[mine], firsts[mine])

        return from_parts(self._dataset, episodes, len(episodes), of_part)

    def _of_part(self, part: int, episodes: Array, firsts: Array) -> dict[str, Array]:
        dataset, batch = self._dataset, self._dataset.part(part)
        begins, segments = dataset.start[episodes] + firsts, dataset.segment[episodes]
        left = dataset.lengths[episodes] - firsts
        summed = np.minimum(left, self._n_step)
        ahead = np.arange(self._n_step)
        is_summed = ahead < summed[:, None]
        rewards = batch.rewards[np.where(is_summed, begins[:, None] + ahead, begins[:, None])].astype(np.float64)
        returns = np.clip(rewards, -self._clip, self._clip) * is_summed @ self._discounts[:-1] * self._scale
        has_ended = summed == left
        seen = self._observed(batch, begins, firsts, segments)[0]
        last = summed - has_ended  # what comes after an episode's last step is kept with that step
        following, after = self._observed(batch, begins + last, firsts + last, segments)
        following = trees.map_leaves(functools.partial(_either, has_ended), after, following)
        steps = {
            "observations": as_learned(self._spec.seen, seen),
            "actions": self._distribution.as_sampled(trees.rows(batch.actions, begins)),
            "returns": returns.astype(np.float32),
            "next_observations": as_learned(self._spec.seen, following),
            "discounts": (self._discounts[summed] * ~(has_ended & batch.terminated[segments])).astype(np.float32),
        }
        if self._spec.is_masked:
            steps |= {"allows": allowed(seen, self._spec), "next_allows": allowed(following, self._spec)}
        return steps

    def _observed(self, batch: Any, rows: Array, firsts: Array, segments: Array) -> tuple[Tree, Tree]:
        """What was seen at rows, and what after them if they are the last of their episodes."""
        return observed(self._spec.observation, batch, rows, np.ones(len(rows), np.int64), firsts, segments)


def _either(is_one: Array, one: Array, other: Array) -> Array:
    """Rows of one column where that is chosen, [W], and of the other where not."""
    return np.asarray(np.where(is_one.reshape(-1, *[1] * (one.ndim - 1)), one, other))
