"""A rollout in a process of its own: the thin Ray shell around rollout.py."""

from __future__ import annotations

import dataclasses
import time

from actors.environments import make_environments
from actors.episode import Array, EpisodeBatch
from actors.policy import Policy
from actors.rollout import Rollout, RolloutConfig


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


class RolloutActor:
    """Flies environments with whatever policy it is sent. It never imports torch.

    It is prepared by a call, not when it is made: one process can then fly for run after run, and Ray tells of an
    exception in a call what it was, but of one in a constructor only that the actor died.
    """

    def prepare(self, env_id: str, config: RolloutConfig, seed: int) -> str:
        """Get ready to collect; answers who simulates.

        Args:
            env_id: a Gymnasium id.
            config: what a rollout is.
            seed: of the environments and the actions.
        """
        environments = make_environments(env_id, config.n_envs, seed, config.backend)
        self._config, self._rollout = config, Rollout(environments, seed)
        return environments.backend

    def collect(self, policy: Policy) -> tuple[EpisodeBatch, RolloutReport]:
        """One rollout."""
        start = time.perf_counter()
        batch = self._rollout.collect(policy, self._config)
        seconds = time.perf_counter() - start
        report = RolloutReport(
            batch.num_steps,
            batch.num_bytes,
            policy.spec.version,
            batch.episode_returns,
            batch.episode_lengths,
            seconds,
        )
        return batch, report
