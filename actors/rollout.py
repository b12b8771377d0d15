"""Flying a vector of environments with one policy: the hot loop. It knows nothing of Ray."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from actors import trees
from actors.environments import MAX_EPISODE_STEPS
from actors.episode import Array, EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.memory import restarted
from actors.policy import Memory, Policy
from actors.seeds import ACTIONS, ENVIRONMENTS, Seed, sub_seed
from actors.trees import Tree
from actors.vectors import Environments

_NOISE_STEPS = 128
"""How many steps' worth of action noise is drawn in one call."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """What one actor flies in one rollout: n_envs × n_steps steps, or n_envs × episodes_per_env episodes."""

    n_envs: int = 64
    """Environments that an actor steps together."""
    n_steps: int | None = 128
    """Steps in each environment, 2 or more, since one can be a reset; episodes go on in the next rollout."""
    episodes_per_env: int | None = None
    """Whole episodes in each environment, instead of n_steps."""
    max_episode_steps: int = MAX_EPISODE_STEPS
    """Steps after which whole episodes, and those flown for a score, are cut where the environment sets no limit."""
    backend: Literal["auto", "gymnasium", "envpool"] = "auto"
    """Who simulates; auto: EnvPool where it has the environment."""

    def __post_init__(self) -> None:
        if (self.n_steps is None) == (self.episodes_per_env is None):
            raise UserError(
                f"set either n_steps or episodes_per_env, and None for the other: "
                f"n_steps is {self.n_steps}, episodes_per_env {self.episodes_per_env}"
            )
        for name, least in (("n_envs", 1), ("n_steps", 2), ("episodes_per_env", 1), ("max_episode_steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} must be {least} or more, not {value}")


class Rollout:
    """Collects experience from a vector of environments, either way without a bias toward short episodes.

    ``fragments``: every slot flies the same number of steps; episodes go on from one call to the next.
    ``episodes``: every slot flies the same number of whole episodes, however long each is; a slot that is done waits.

    Args:
        environments: what is flown.
        seed: decides the actions that are sampled; the environments have their own.
    """

    def __init__(self, environments: Environments, seed: Seed) -> None:
        self._environments = environments
        self._rng = np.random.default_rng(seed)
        self._observations: Tree | None = None
        self._memory: Memory | None = None
        self._done = np.zeros(environments.num_envs, bool)
        self._returns = np.zeros(environments.num_envs)
        self._lengths = np.zeros(environments.num_envs, np.int64)
        self.segment_slots = np.zeros(0, np.int64)
        """[E]: the slot that flew each segment of the last batch, so that fragments can be joined to whole episodes."""

    def collect(self, policy: Policy, config: RolloutConfig, seed: Seed | None = None) -> EpisodeBatch:
        """One rollout of either kind; ``seed`` is of whole episodes only."""
        if config.n_steps is not None:
            return self.fragments(policy, config.n_steps)
        assert config.episodes_per_env is not None
        return self.episodes(policy, config.episodes_per_env, seed)

    def fragments(self, policy: Policy, n_steps: int) -> EpisodeBatch:
        """``n_steps`` steps in every slot, going on where the last call stopped."""
        if self._observations is None:
            self._reset()
        return self._fly(policy, n_steps=n_steps)

    def episodes(self, policy: Policy, episodes_per_slot: int, seed: Seed | None = None) -> EpisodeBatch:
        """``episodes_per_slot`` whole episodes in every slot, each flown by ``policy`` from its first step.

        ``seed``: it and the policy then decide all that happens, whatever was flown before; None: random streams go on.
        """
        of_environments = None
        if seed is not None:
            self._rng = np.random.default_rng(sub_seed(seed, ACTIONS))
            of_environments = sub_seed(seed, ENVIRONMENTS)
        self._reset(of_environments)
        return self._fly(policy, episodes_per_slot=episodes_per_slot)

    def _reset(self, seed: Seed | None = None) -> None:
        self._observations, self._memory = self._environments.reset(seed), None
        self._done[:] = False
        self._returns[:] = 0
        self._lengths[:] = 0

    def _fly(self, policy: Policy, n_steps: int | None = None, episodes_per_slot: int | None = None) -> EpisodeBatch:
        environments = self._environments
        current = self._observations
        assert current is not None
        memory = policy.start(environments.num_envs) if self._memory is None else self._memory
        slots = np.arange(environments.num_envs)
        flying: Array | slice = slice(None)  # a view of all slots while all fly, an index of those that still do later
        to_fly = np.full(environments.num_envs, episodes_per_slot or 0)
        rows: list[dict[str, Tree]] = []
        space = policy.spec.observation
        begins = np.ones(environments.num_envs, bool)  # a segment, with the slot's next step
        earlier: list[tuple[Array, Tree]] = []
        while len(slots) and len(rows) != n_steps:
            row = len(rows) % _NOISE_STEPS
            if row == 0:
                noise = policy.distribution.noise(self._rng, (_NOISE_STEPS, environments.num_envs))
            observations = space.copied(trees.rows(current, flying))
            step = policy.step(observations, memory, noise[row][flying])
            following, rewards, terminated, truncated = environments.step(step.actions, slots)
            after = policy.rewarded(step.memory, rewards)
            is_step = ~self._done[flying]  # a slot whose episode had ended was reset by this call: not experience
            if space.has_frames:
                first = np.flatnonzero(begins[slots] & is_step)
                earlier.append((slots[first], space.earlier(trees.rows(observations, first))))
                begins[slots] = ~is_step
                observations = space.newest(observations)
            rows.append(
                {
                    "slots": slots,
                    "is_step": is_step,
                    "observations": observations,
                    "parameters": step.parameters,
                    "actions": step.sampled,
                    "rewards": rewards,
                    "following": space.newest(following) if space.has_frames else following,
                    "terminated": terminated,
                    "truncated": truncated,
                    "memory": memory if policy.stores_memory else {},
                }
            )
            memory = restarted(after, ~is_step, policy) if after else after
            trees.put(current, flying, following)
            self._done[flying] = terminated | truncated
            if episodes_per_slot is not None and self._done.any():
                to_fly -= self._done
                memory = trees.rows(memory, to_fly[slots] > 0)
                flying = slots = np.flatnonzero(to_fly > 0)
        self._memory = memory if episodes_per_slot is None else None
        return self._batch(policy, rows, earlier)

    def _batch(self, policy: Policy, rows: list[dict[str, Tree]], earlier: list[tuple[Array, Tree]]) -> EpisodeBatch:
        """Turn rows of slots into slots of rows, and mark where segments end.

        Args:
            policy: who flew.
            rows: of each step, columns of the slots that flew.
            earlier: slots where segments began, and what was seen there of steps before, in the order of steps.
        """
        columns = trees.concatenate(rows)
        order = np.argsort(columns["slots"], kind="stable")
        order = order[columns["is_step"][order]]
        columns = trees.rows(columns, order)
        slots, parameters, actions = columns["slots"], columns["parameters"], columns["actions"]
        terminated, truncated = columns["terminated"], columns["truncated"]
        if not np.isfinite(parameters).all():
            seen = trees.leaves(columns["observations"])
            bad = "policy output" if all(np.isfinite(leaf).all() for _, leaf in seen) else "observation"
            raise NonFiniteError(f"{policy.spec.env_id}: the {bad} holds a NaN or an infinity")
        policy.require_actions(columns["observations"])  # of those after an episode's last step nobody asks for one
        done = terminated | truncated
        last_of_slot = np.append(slots[1:] != slots[:-1], True)
        ends = np.flatnonzero(done | last_of_slot)
        starts = np.append(0, ends[:-1] + 1)
        self.segment_slots = slots[ends]
        lengths = ends - starts + 1
        returns, total_lengths = self._whole_episodes(columns["rewards"], starts, lengths, slots[ends], done[ends])
        try:
            return EpisodeBatch(
                observations=columns["observations"],
                actions=actions,
                rewards=columns["rewards"],
                notes=policy.notes(parameters, actions),
                segment_lengths=lengths.astype(np.int32),
                final_observations=policy.spec.observation.copied(trees.rows(columns["following"], ends)),
                earlier=_in_order_of_slots(earlier) if earlier else {},
                memories=trees.rows(columns["memory"], starts),
                terminated=terminated[ends],
                truncated=truncated[ends],
                policy_version=np.full(len(ends), policy.spec.version, np.int64),
                episode_returns=returns,
                episode_lengths=total_lengths,
            )
        except NonFiniteError as error:
            raise NonFiniteError(f"{policy.spec.env_id}: {error}") from error

    def _whole_episodes(
        self, rewards: Array, starts: Array, lengths: Array, slots: Array, done: Array
    ) -> tuple[Array, Array]:
        """Undiscounted returns and lengths of the episodes that ended, fragments flown earlier included."""
        returns = np.add.reduceat(rewards, starts, dtype=np.float64)
        first, last = np.append(True, slots[1:] != slots[:-1]), np.append(slots[1:] != slots[:-1], True)
        returns[first] += self._returns[slots[first]]
        lengths = lengths + np.where(first, self._lengths[slots], 0)
        goes_on = last & ~done
        self._returns[:], self._lengths[:] = 0, 0
        self._returns[slots[goes_on]], self._lengths[slots[goes_on]] = returns[goes_on], lengths[goes_on]
        return returns[done], lengths[done]


def _in_order_of_slots(begun: list[tuple[Array, Tree]]) -> Tree:
    """What belongs to segments, in the order of the slots, and of steps in each, of what came in that of steps."""
    order = np.argsort(np.concatenate([slots for slots, _ in begun]), kind="stable")
    in_order: Tree = trees.rows(trees.concatenate([tree for _, tree in begun]), order)
    return in_order
