"""A rollout in a process of its own: the thin Ray shell around rollout.py."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Protocol

from actors.episode import Array, EpisodeBatch
from actors.evaluation import fly_episodes
from actors.policy import Policy
from actors.registration import register
from actors.rollout import Rollout, RolloutConfig
from actors.seeds import ACTIONS, ENVIRONMENTS, Seed, sub_seed
from actors.vectors import Environments, make_environments


@dataclasses.dataclass(frozen=True)
class RolloutReport:
    """What the driver needs to know of a rollout; the batch itself goes to the learner."""

    num_steps: int
    num_bytes: int
    policy_version: int
    episode_returns: Array
    """[finished episodes], undiscounted."""
    episode_lengths: Array
    seconds: float
    """Time the actor spent flying."""


class Recorder(Protocol):
    """Keeps the whole episodes that an actor flies."""

    def add(self, batch: EpisodeBatch, slots: Array, policy: Policy) -> None:
        """Note what was flown; an episode that goes on is kept when it has ended.

        Args:
            batch: whole episodes, or fragments that follow those of the batch before.
            slots: [E]: who flew each segment; one that has not ended goes on with the next of its slot.
            policy: who flew.
        """

    def close(self) -> None:
        """Write what is whole and not yet written."""


class RolloutActor:
    """Flies environments with whatever policy it is sent. It never imports torch.

    It is prepared by a call, not when it is made: one process can then fly for run after run, and Ray tells of an
    exception in a call what it was, but of one in a constructor only that the actor died.
    """

    _environments: Environments | None = None
    _recorder: Recorder | None = None

    def prepare(
        self,
        env_id: str,
        config: RolloutConfig,
        seed: Seed,
        registered: bytes | None = None,
        recorder: Recorder | None = None,
    ) -> str:
        """Get ready to collect; answers who simulates.

        Args:
            env_id: a Gymnasium id.
            config: what a rollout is.
            seed: what the environments' and the actions' seeds are derived from.
            registered: see ``registration``.
            recorder: told of all that is flown; None: nobody keeps it.
        """
        self.finish()
        self._recorder = recorder
        register(env_id, registered)
        if self._environments:
            self._environments.close()
        self._environments = environments = make_environments(
            env_id,
            config.n_envs,
            sub_seed(seed, ENVIRONMENTS),
            config.backend,
            None if config.episodes_per_env is None else config.max_episode_steps,
        )
        self._config, self._rollout = config, Rollout(environments, sub_seed(seed, ACTIONS))
        return environments.backend

    def collect(self, policy: Policy, seed: Seed | None = None) -> tuple[EpisodeBatch, RolloutReport]:
        """One rollout; ``seed`` decides what its whole episodes are, whoever flies them."""
        start = time.perf_counter()
        batch = self._rollout.collect(policy, self._config, seed)
        seconds = time.perf_counter() - start
        if self._recorder:
            self._recorder.add(batch, self._rollout.segment_slots, policy)
        report = RolloutReport(
            batch.num_steps,
            batch.num_bytes,
            policy.spec.version,
            batch.episode_returns,
            batch.episode_lengths,
            seconds,
        )
        return batch, report

    def finish(self) -> None:
        """Have all whole episodes written that are to be kept."""
        if self._recorder:
            self._recorder.close()

    def evaluate(self, policy: Policy, seeds: Sequence[int]) -> tuple[Array, Array, Array, float]:
        """Episodes on Gymnasium, one for each seed: see ``fly_episodes``; and the seconds that they took.

        They are greedy, but for a policy that is to be sampled.
        """
        start = time.perf_counter()
        limit = self._config.max_episode_steps
        flown = fly_episodes(policy, seeds, not policy.spec.is_sampled, max_episode_steps=limit)
        return (*flown, time.perf_counter() - start)
