"""Actors that only think and a learner that only looks: what is left is the driver, Ray and the road between them."""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import Any

import numpy as np

from actors.actor import Recorder, RolloutActor, RolloutReport
from actors.episode import Array, EpisodeBatch
from actors.policy import Policy
from actors.rollout import RolloutConfig
from actors.seeds import Seed, derive, sub_seed
from actors.spec import PolicySpec
from actors.trees import leaves

EPISODE_STEPS = 256
"""Steps of an episode of the pre-made batch."""


def premade_batch(steps: int, observation_size: int, actions: int, seed: int) -> EpisodeBatch:
    """A batch of ``steps`` steps of whole episodes, whose returns are the sums of their rewards, as in a real one."""
    rng, episodes = np.random.default_rng(seed), steps // EPISODE_STEPS
    rewards = rng.standard_normal(steps, np.float32)
    return EpisodeBatch(
        observations=rng.standard_normal((steps, observation_size), np.float32),
        actions=rng.integers(actions, size=steps),
        rewards=rewards,
        notes={"log_prob": np.full(steps, -np.log(actions), np.float32)},
        segment_lengths=np.full(episodes, EPISODE_STEPS, np.int32),
        final_observations=rng.standard_normal((episodes, observation_size), np.float32),
        terminated=np.ones(episodes, bool),
        truncated=np.zeros(episodes, bool),
        policy_version=np.zeros(episodes, np.int64),
        episode_returns=rewards.reshape(episodes, EPISODE_STEPS).sum(1, np.float64),
        episode_lengths=np.full(episodes, EPISODE_STEPS),
    )


def bytes_of(batch: EpisodeBatch) -> int:
    """Bytes of all columns."""
    return sum(getattr(batch, field.name).nbytes for field in dataclasses.fields(batch))


@dataclasses.dataclass(frozen=True)
class Flight:
    """When an actor flew, and with which policy. Clocks are this machine's, the same in every process."""

    version: int
    started: float
    ended: float


class SimulatedActor(RolloutActor):
    """Waits for as long as its policy says, and hands over a batch that was made beforehand."""

    def prepare(
        self,
        env_id: str,
        config: RolloutConfig,
        seed: Seed,
        registered: bytes | None = None,
        recorder: Recorder | None = None,
    ) -> str:
        """``seed`` also tells it which actor of the fleet it is."""
        assert config.n_steps is not None
        self._index = sub_seed(seed).spawn_key[-1]
        self._batch = premade_batch(config.n_envs * config.n_steps, 8, 4, derive(seed, 1)[0])
        self._flights: list[Flight] = []
        return "nobody (simulated)"

    def collect(self, policy: Policy, seed: Seed | None = None) -> tuple[EpisodeBatch, RolloutReport]:
        """Thinks by sleeping, so that it costs no CPU. The batch is copied as Ray stores it, like any other."""
        started = time.monotonic()
        trained = policy.spec.trained
        time.sleep(trained["think_seconds"] * (trained["slowness"] if self._index == 0 else 1.0))
        version = np.full(self._batch.num_segments, policy.spec.version, np.int64)
        batch = dataclasses.replace(self._batch, policy_version=version)  # checked for shapes and NaNs once more
        ended = time.monotonic()
        self._flights.append(Flight(policy.spec.version, started, ended))
        report = RolloutReport(
            batch.num_steps,
            batch.num_bytes,
            policy.spec.version,
            batch.episode_returns,
            batch.episode_lengths,
            ended - started,
        )
        return batch, report

    def flights(self) -> list[Flight]:
        """All it flew."""
        return self._flights


class SimulatedLearner:
    """Reads what it is sent and answers with a policy of the right size, one version on.

    Its metrics say when the policy was made, and of how many batches at each lag.
    """

    def __init__(self, think_seconds: float, slowness: float) -> None:
        self._trained = {"think_seconds": think_seconds, "slowness": slowness}

    def prepare(self, *_place: Any, spec: PolicySpec, **_: Any) -> str:
        """Make weights; see LearnerActor."""
        rng = np.random.default_rng(0)
        weights = {name: rng.standard_normal(shape, np.float32) for name, shape in spec.weight_shapes().items()}
        self._policy = Policy(dataclasses.replace(spec, trained=self._trained), weights)
        return "nothing (simulated)"

    def policy(self) -> Policy:
        """The policy as it is now."""
        return self._policy

    def update(self, *batches: EpisodeBatch, progress_remaining: float) -> tuple[Policy, dict[str, float]]:
        """Check that rewards add up to the episodes' returns, touch the rest, and count.

        Raises:
            ValueError: a batch is not what its actor sent.
        """
        start = time.monotonic()
        spec = self._policy.spec
        lags: collections.Counter[int] = collections.Counter()
        for batch in batches:
            whole = batch.terminated.all()  # no episode has a part in another batch: pre-made
            if whole and not np.isclose(batch.rewards.sum(dtype=np.float64), batch.episode_returns.sum()):
                raise ValueError("a batch was damaged on its way")
            for _, column in leaves(vars(batch)):
                column.sum()
            lags[spec.version - int(batch.policy_version[0])] += 1
        self._policy = Policy(dataclasses.replace(spec, version=spec.version + 1), self._policy.weights)
        made = time.monotonic()
        counted = {f"lag/{lag}": float(count) for lag, count in lags.items()}
        return self._policy, {"time/made": made, "time/learner_busy": made - start, **counted}

    def state(self) -> dict[str, Array]:
        """What a checkpoint holds."""
        return {"version": np.array(self._policy.spec.version), **self._policy.weights}
