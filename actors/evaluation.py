"""Flying episodes for the score: on Gymnasium always, one seed an episode, with seeds that no training used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from actors.environments import make_gymnasium
from actors.episode import Array
from actors.errors import UserError
from actors.files import replacing
from actors.policy import Policy


def fly_episodes(
    policy: Policy,
    seeds: Sequence[int],
    deterministic: bool = True,
    slots: int = 64,
    env_id: str | None = None,
) -> tuple[Array, Array]:
    """Fly one whole episode for each seed.

    Args:
        policy: who flies.
        seeds: episode i starts from ``env.reset(seed=seeds[i])``.
        deterministic: take the most likely action; otherwise sample, reproducibly.
        slots: environments stepped together.
        env_id: another environment than the policy's own.

    Returns:
        Undiscounted returns [n] float64 and lengths [n] int64, in the order of ``seeds``.

    Raises:
        ValueError: ``slots`` is not positive.
    """
    if slots < 1:
        raise ValueError(f"slots must be 1 or more, not {slots}")
    envs = [make_gymnasium(env_id or policy.spec.env_id) for _ in range(min(slots, len(seeds)))]
    rng = None if deterministic else np.random.default_rng([*seeds])
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
    flying = np.arange(len(envs))  # the episode in each slot; a free slot takes the next seed, so every seed is flown
    observations = [env.reset(seed=int(seeds[i]))[0] for i, env in enumerate(envs)]
    following = len(envs)
    while envs:
        actions = policy.act(np.asarray(observations, np.float32), rng)
        landed = []
        for slot, env in enumerate(envs):
            observations[slot], reward, terminated, truncated, _ = env.step(actions[slot])
            returns[flying[slot]] += float(reward)
            lengths[flying[slot]] += 1
            if not (terminated or truncated):
                continue
            if following < len(seeds):
                observations[slot], _ = env.reset(seed=int(seeds[following]))
                flying[slot] = following
                following += 1
            else:
                landed.append(slot)
        for slot in reversed(landed):
            envs.pop(slot).close()
            observations.pop(slot)
            flying = np.delete(flying, slot)
    return returns, lengths


def record_video(policy: Policy, path: str | Path, seed: int, episodes: int = 3) -> list[float]:
    """Film whole greedy episodes to an mp4 file, written atomically.

    Returns:
        The return of each episode.

    Raises:
        UserError: the environment cannot be rendered.
    """
    import imageio.v2

    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # pygame draws the frames; it needs neither screen nor sound
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        env = make_gymnasium(policy.spec.env_id, render_mode="rgb_array")
    except (TypeError, AssertionError) as error:
        raise UserError(f"{policy.spec.env_id} renders no pictures: no video") from error
    path = Path(path)
    path = path if path.suffix == ".mp4" else path.with_name(f"{path.name}.mp4")
    fps = env.metadata.get("render_fps", 30)
    with contextlib.closing(env), replacing(path) as temporary:
        writer: Any = imageio.v2.get_writer(temporary, fps=fps, macro_block_size=2)
        with contextlib.closing(writer):
            return [_film(env, policy, seed + episode, writer) for episode in range(episodes)]


def _film(env: gymnasium.Env[Any, Any], policy: Policy, seed: int, writer: Any) -> float:
    """One greedy episode, a frame a step; returns its return."""
    observation, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        frame: Any = env.render()
        if not isinstance(frame, np.ndarray):
            raise UserError(f"{policy.spec.env_id} renders no pictures: no video")
        writer.append_data(frame)
        action = policy.act(np.asarray(observation, np.float32)[None])[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        done = terminated or truncated
    return total
