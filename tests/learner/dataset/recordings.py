"""Episodes to record, of any spaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors.episode import EpisodeBatch
from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.trees import Array, Tree
from learner.dataset.form import Form, kept_actions
from learner.dataset.writer import DatasetWriter

LANDER = Form("LunarLander-v3", Box((8,)), Discrete(4))
FORMS = {
    "vectors": LANDER,
    "pictures": Form("ALE/Pong-v5", Picture((3, 6, 5), frames=3), Discrete(6)),
    "one picture": Form("CarRacing-v3", Picture((6, 5, 3)), Box((3,), low=(-1, 0, 0), high=(1, 1, 1))),
    "parts": Form(
        "tests:Parts-v0",
        Parts(
            {
                "eye": Picture((2, 4, 4), frames=2),
                "inner": Parts({"place": Box((2, 2), "float64"), "floor": Discrete(3, 5)}),
            }
        ),
        MultiDiscrete((3, 200), (2,), (-4, 100)),
    ),
    "tuple": Form("tests:Tuple-v0", Parts({"0": MultiBinary((3,)), "1": Box(())}, is_tuple=True), MultiBinary((2, 2))),
    "parts of actions": Form(
        "tests:Orders-v0",
        Box((2,)),
        Parts({"a": Discrete(3, -1), "b": Parts({"0": Box((2,), low=(0, 0), high=(1, 2)), "1": MultiBinary((2,))})}),
    ),
    "far actions": Form("tests:Far-v0", MultiDiscrete((3, 3), (2,)), Discrete(2, -300)),
}


def episodes(form: Form, lengths: Sequence[int], seed: int = 0) -> EpisodeBatch:
    """Whole episodes of these lengths, full of different numbers."""
    rng = np.random.default_rng([seed, *lengths])
    steps, count = sum(lengths), len(lengths)
    space = form.observation
    rewards = rng.standard_normal(steps, np.float32)
    ends = np.cumsum(lengths)
    terminated = rng.random(count) < 0.5
    return EpisodeBatch(
        observations=space.newest(space.sample(rng, steps)),
        actions=flown(form.action, rng, steps),
        rewards=rewards,
        notes={"log_prob": rng.standard_normal(steps, np.float32)},
        segment_lengths=np.array(lengths, np.int32),
        final_observations=space.newest(space.sample(rng, count)),
        earlier=space.earlier(space.sample(rng, count)),
        memories={"core": rng.standard_normal((count, 2), np.float32)},
        terminated=terminated,
        truncated=~terminated,
        policy_version=np.full(count, 3),
        episode_returns=np.array([part.sum(dtype=np.float64) for part in np.split(rewards, ends[:-1])]),
        episode_lengths=np.array(lengths, np.int64),
    )


def flown(space: Space, rng: np.random.Generator, count: int) -> Tree:
    """Actions as an environment takes them, within bounds, [count, *act] or a tree of these."""
    if isinstance(space, Parts):
        return {name: flown(part, rng, count) for name, part in space.spaces.items()}
    actions: Array = space.sample(rng, count)
    return np.clip(actions, space.low, space.high) if isinstance(space, Box) and space.low else actions


def kept(form: Form, batch: EpisodeBatch) -> EpisodeBatch:
    """What a dataset keeps of a batch."""
    return EpisodeBatch(
        **{**vars(batch), "notes": {}, "memories": {}, "actions": kept_actions(form.action, batch.actions)}
    )


def write(location: Path | str, form: Form, *batches: EpisodeBatch, writer: str = "w", **source: object) -> None:
    """A part for each of the batches."""
    recorder = DatasetWriter(location, form.env_id, form.observation, form.action, writer)
    for batch in batches:
        recorder.add(batch, source or {"policy": "runs/a"})
        recorder.flush()
