"""Flying episodes for the score: on Gymnasium always, one seed an episode, with seeds that no training used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from actors import doom, trees
from actors.environments import MAX_EPISODE_STEPS, fitting, stacked
from actors.episode import Array
from actors.errors import UserError
from actors.files import replacing
from actors.making import close, fault, make_gymnasium, make_several
from actors.memory import restarted
from actors.pace import steps_a_second
from actors.policy import Policy

_NOISE_STEPS = 64
"""Steps of an episode whose noise is drawn at once."""
FILMED = 3
"""Episodes of a video."""
_FILM_STEPS = 3_000
"""As many steps of an episode without a limit are filmed: a minute or two."""


def fly_episodes(
    policy: Policy,
    seeds: Sequence[int],
    deterministic: bool = True,
    slots: int = 64,
    env_id: str | None = None,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> tuple[Array, Array, Array]:
    """Fly one whole episode for each seed.

    Args:
        policy: who flies.
        seeds: episode i starts from ``env.reset(seed=seeds[i])``.
        deterministic: take the most likely action; otherwise sample, reproducibly.
        slots: environments stepped together, but no more than ``doom.GAMES`` of ViZDoom's.
        env_id: another environment than the policy's own.
        max_episode_steps: where an episode is cut if the environment has no limit of its own.

    Returns:
        Undiscounted returns [n] float64, lengths [n] int64, and whether a time limit cut the episode [n] bool, in the
        order of ``seeds``.

    Raises:
        ValueError: ``slots`` is not positive.
        EnvironmentFault: the environment raised; carries its traceback.
    """
    if slots < 1:
        raise ValueError(f"slots must be 1 or more, not {slots}")
    env_id = env_id or policy.spec.env_id
    envs = make_several(env_id, min(slots, len(seeds)), max_episode_steps)
    if envs and doom.is_doom(envs[0]):
        del envs[doom.GAMES :]
    try:
        return _fly(policy, envs, seeds, deterministic, env_id)
    finally:
        for env in envs:  # those that an exception left flying
            close(env, env_id)


def _fly(
    policy: Policy,
    envs: list[gymnasium.Env[Any, Any]],
    seeds: Sequence[int],
    deterministic: bool,
    env_id: str,
) -> tuple[Array, Array, Array]:
    """One whole episode for each seed; an environment for which none is left is closed and taken from ``envs``."""
    returns, lengths, cut = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64), np.zeros(len(seeds), bool)
    flying = np.arange(len(envs))  # the episode in each slot; a free slot takes the next seed, so every seed is flown
    observations = [_reset(env, env_id, seeds[i]) for i, env in enumerate(envs)]
    following = len(envs)
    memory = policy.start(len(envs))
    noises = [_noise(policy, seeds[i]) for i in range(len(envs))]
    while envs:
        noise = None if deterministic else np.stack([next(each) for each in noises])
        seen = stacked(policy.spec.observation, observations, env_id, "reset or step")
        policy.require_actions(seen)
        step = policy.step(seen, memory, noise)
        actions = fitting(step.actions, envs[0].action_space)
        begins = np.zeros(len(envs), bool)
        rewards = np.zeros(len(envs))
        landed = []
        for slot, env in enumerate(envs):
            try:
                observations[slot], reward, terminated, truncated, _ = env.step(actions[slot])
                rewards[slot] = float(reward)
            except (Exception, SystemExit) as error:
                raise fault(env_id, "step", error) from error
            returns[flying[slot]] += rewards[slot]
            lengths[flying[slot]] += 1
            if not (terminated or truncated):
                continue
            cut[flying[slot]] = not terminated
            if following < len(seeds):
                observations[slot] = _reset(env, env_id, seeds[following])
                flying[slot], noises[slot] = following, _noise(policy, seeds[following])
                begins[slot] = True
                following += 1
            else:
                landed.append(slot)
        memory = restarted(policy.rewarded(step.memory, rewards), begins, policy)
        for slot in reversed(landed):
            close(envs.pop(slot), env_id)
            observations.pop(slot)
            noises.pop(slot)
        if landed:
            stays = np.delete(np.arange(len(flying)), landed)
            flying, memory = flying[stays], trees.rows(memory, stays)
    return returns, lengths, cut


def _noise(policy: Policy, seed: int) -> Iterator[Array]:
    """The noise of an episode's steps, [A] each: it follows from the episode's seed, whatever is flown beside it."""
    rng = np.random.default_rng([int(seed)])
    while True:
        yield from policy.distribution.noise(rng, (_NOISE_STEPS,))


def _reset(env: gymnasium.Env[Any, Any], env_id: str, seed: int) -> Any:
    try:
        observation, _ = env.reset(seed=int(seed))
    except (Exception, SystemExit) as error:
        raise fault(env_id, "reset", error) from error
    return observation


def record_video(
    policy: Policy,
    path: str | Path,
    seed: int,
    episodes: int = FILMED,
    max_episode_steps: int = _FILM_STEPS,
    deterministic: bool | None = None,
) -> list[float]:
    """Film whole episodes in real time, a frame a step, to an mp4 file, written atomically.

    Args:
        policy: who flies.
        path: the file; .mp4 is added where it is missing.
        seed: of the first episode; the others count up from it.
        episodes: so many.
        max_episode_steps: where a film is cut if the environment has no limit of its own.
        deterministic: take the most likely action, or sample as ``fly_episodes`` does; None: as the policy is meant to.

    Returns:
        The return of each episode.

    Raises:
        UserError: the environment cannot be rendered.
        EnvironmentFault: it raised; carries its traceback.
    """
    import imageio.v2

    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # pygame draws the frames; it needs neither screen nor sound
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        env = make_gymnasium(policy.spec.env_id, max_episode_steps, render_mode="rgb_array")
    except UserError as error:
        if isinstance(error.__cause__, TypeError | AssertionError):  # it knows no render_mode
            raise UserError(f"{policy.spec.env_id} renders no pictures: no video") from error
        raise
    is_sampled = policy.spec.is_sampled if deterministic is None else not deterministic
    path = Path(path)
    path = path if path.suffix == ".mp4" else path.with_name(f"{path.name}.mp4")
    with contextlib.closing(env), replacing(path) as temporary:
        writer: Any = imageio.v2.get_writer(temporary, fps=steps_a_second(env, otherwise=30), macro_block_size=2)
        with contextlib.closing(writer):
            return [_film(env, policy, seed + episode, is_sampled, writer) for episode in range(episodes)]


def _film(env: gymnasium.Env[Any, Any], policy: Policy, seed: int, is_sampled: bool, writer: Any) -> float:
    """One episode, a frame a step; returns its return."""
    env_id = policy.spec.env_id
    noises = _noise(policy, seed) if is_sampled else None
    observation, memory = _reset(env, env_id, seed), policy.start(1)
    total, done = 0.0, False
    while not done:
        try:
            frame: Any = env.render()
        except Exception as error:
            raise fault(env_id, "render", error) from error
        if not isinstance(frame, np.ndarray):
            raise UserError(f"{env_id} renders no pictures: no video")
        writer.append_data(frame)
        seen = stacked(policy.spec.observation, [observation], env_id, "reset or step")
        policy.require_actions(seen)
        step = policy.step(seen, memory, None if noises is None else next(noises)[None])
        try:
            observation, given, terminated, truncated, _ = env.step(fitting(step.actions, env.action_space)[0])
            reward = float(given)
        except Exception as error:
            raise fault(env_id, "step", error) from error
        memory = policy.rewarded(step.memory, np.array([reward]))
        total += reward
        done = terminated or truncated
    return total
