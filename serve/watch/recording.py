"""What people fly by hand on the page, kept as episodes of a dataset to learn from."""

from __future__ import annotations

import threading
import uuid

import numpy as np

from actors import trees
from actors.episode import Array, EpisodeBatch
from actors.errors import UserError
from actors.spaces import Space
from actors.trees import Tree
from learner.dataset.writer import DatasetWriter
from serve.service.policies import Policies

SOURCE = {"person": True}
"""Who flew, as datasets say it."""


class Tape:
    """The steps of an episode, one by one.

    Args:
        space: of observations.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._observations: list[Tree] = []
        self._actions: list[Array] = []
        self._rewards: list[float] = []
        self._earlier: Tree = {}

    def add(self, observation: Tree, action: Array, reward: float) -> None:
        """Add a step.

        Args:
            observation: what was seen before it, a column of one row.
            action: as the environment takes it.
            reward: that it gave.
        """
        if not self._rewards:
            self._earlier = self._space.earlier(observation)
        self._observations.append(self._space.newest(observation))
        self._actions.append(np.array(action))
        self._rewards.append(reward)

    def episode(self, following: Tree, terminated: bool) -> EpisodeBatch:
        """All steps as an episode, in which actions are as the environment takes them.

        Args:
            following: what was seen after the last step, a column of one row.
            terminated: the episode came to an end of its own; otherwise a time limit cut it.

        Raises:
            NonFiniteError: an observation or a reward holds a NaN or an infinity.
        """
        rewards = np.array(self._rewards, np.float32)
        length = np.array([len(rewards)])
        return EpisodeBatch(
            observations=trees.concatenate(self._observations),
            actions=np.stack(self._actions),
            rewards=rewards,
            notes={},
            segment_lengths=length.astype(np.int32),
            final_observations=self._space.newest(following),
            earlier=self._earlier,
            terminated=np.array([terminated]),
            truncated=np.array([not terminated]),
            policy_version=np.zeros(1, np.int64),
            episode_returns=rewards.sum(dtype=np.float64, keepdims=True),
            episode_lengths=length,
        )


class Recorder:
    """Keeps episodes that people fly, of all viewers of a process, in a dataset.

    Args:
        location: of the dataset: a path, s3://… or gs://…; it is made if there is none.
        policies: what can be watched.

    Raises:
        UserError: they fly several environments, or the dataset is of another.
        OSError: it cannot be written there.
    """

    def __init__(self, location: str, policies: Policies) -> None:
        first, *others = (served.policy.spec for served in policies.values())
        for other in others:
            if other.env_id != first.env_id:
                said = f"--record keeps flights of one environment, not of {first.env_id} and {other.env_id}"
                raise UserError(f"{said}: serve one of them")
        name = f"page-{uuid.uuid4().hex[:12]}"
        self._writer = DatasetWriter(location, first.env_id, first.observation, first.action, name)
        self._lock = threading.Lock()
        self._waiting = 0
        self.kept = 0
        """Episodes since the process began."""

    def keep(self, episode: EpisodeBatch) -> int:
        """Write an episode there and then; returns how many are kept. From any thread.

        Raises:
            OSError: it could not be written; it is written with the next one.
        """
        with self._lock:
            self._writer.add(episode, SOURCE)
            self._waiting += 1
            self._writer.flush()
            self.kept, self._waiting = self.kept + self._waiting, 0
            return self.kept
