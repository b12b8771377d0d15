"""``python -m learner.dataset.minari``: Minari's datasets as ours, and ours as Minari's. An extra: touchdown[minari].

python -m learner.dataset.minari in mujoco/hopper/medium-v0 --to datasets/hopper
python -m learner.dataset.minari out datasets/lander --to lander/mixed-v0

Minari's are found by their name, where MINARI_DATASETS_PATH says, or by their directory; none is downloaded.
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("learner.dataset.minari")

import contextlib
import dataclasses
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import tyro
from rich.console import Console

from actors import trees
from actors.episode import EpisodeBatch
from actors.errors import NonFiniteError, UserError
from actors.gymnasium_spaces import action_space_of, space_of
from actors.making import make_gymnasium
from actors.parts import Parts
from actors.spaces import Space
from actors.trees import Tree
from actors.trust import require_named
from learner.commands.command_line import one_line_errors, parse
from learner.commands.console import say
from learner.dataset.card import write_card
from learner.dataset.dataset import Dataset, open_dataset
from learner.dataset.writer import DatasetWriter

_PROG = "python -m learner.dataset.minari"


@dataclasses.dataclass(frozen=True)
class InCommand:
    """Convert a dataset of Minari's, of either format, to one of ours."""

    dataset: Annotated[str, tyro.conf.Positional]
    """Its name, such as mujoco/hopper/medium-v0, or its directory."""
    to: str
    """Where ours is made: a path, s3://… or gs://…"""
    env: str | None = None
    """The environment that it is of, where it does not say, or another version of it."""


@dataclasses.dataclass(frozen=True)
class OutCommand:
    """Convert a dataset of ours to one of Minari's."""

    dataset: Annotated[str, tyro.conf.Positional]
    """Ours: a path, s3://… or gs://…"""
    to: str
    """The name of Minari's, such as lander/mixed-v0."""
    data_format: Literal["hdf5", "arrow"] = "hdf5"
    """What Minari keeps it in."""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Import this module if the environment is module:Id-v0; none is because a dataset names it."""


_COMMANDS = Annotated[InCommand, tyro.conf.subcommand("in")] | Annotated[OutCommand, tyro.conf.subcommand("out")]


def from_minari(name: str, location: str | Path, env_id: str | None = None) -> Dataset:
    """Convert a dataset of Minari's to one of ours. An episode that it left open counts as cut by a time limit.

    Args:
        name: its name, or its directory.
        location: where ours is made, or added to.
        env_id: the environment that it is of; None: it says so itself.

    Raises:
        UserError: there is none, it does not name its environment, or is of spaces that no policy has.
        NonFiniteError: it holds a NaN or an infinity; names the episode.
    """
    found = _load(name)
    env_id = env_id or (found.env_spec.id if found.env_spec else None)
    if env_id is None:
        raise UserError(f"{name} does not say its environment: give --env")
    observation = _known(space_of(found.observation_space), found.observation_space, "observations")
    action = _known(action_space_of(found.action_space), found.action_space, "actions")
    part = re.sub(r"[^A-Za-z0-9_.]+", "-", str(found.id))  # several of Minari's may be added to one of ours
    writer = DatasetWriter(location, env_id, observation, action, f"minari-{part}")
    for episode in found.iterate_episodes():
        try:
            writer.add(_batch(episode, observation, action), {"policy": f"minari:{found.id}"})
        except NonFiniteError as error:
            raise NonFiniteError(f"{name}, episode {episode.id}: {error}") from error
        except ValueError as error:
            raise UserError(f"{name}, episode {episode.id}: {error}") from error
    writer.close()
    return open_dataset(location)


def to_minari(dataset: Dataset, name: str, data_format: Literal["hdf5", "arrow"] = "hdf5") -> Any:
    """Convert a dataset of ours to one of Minari's, which knows its environment: part by part, pictures without loss.

    Args:
        dataset: ours.
        name: of Minari's, such as lander/mixed-v0.
        data_format: what Minari keeps it in.

    Returns:
        The MinariDataset.

    Raises:
        UserError: the environment cannot be made here, or Minari does not take the name.
    """
    minari = _minari()
    env = make_gymnasium(dataset.env_id)
    made: Any = None
    with contextlib.closing(env), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an author that it does not have
        for index in range(len(dataset.parts)):
            buffers = _buffers(dataset, index, env)
            if made is not None:
                made.update_dataset_from_buffer(buffers)
                continue
            try:
                made = minari.create_dataset_from_buffers(
                    name,
                    buffers,
                    env=env,
                    description=f"{dataset.num_episodes} episodes, recorded by Touchdown",
                    data_format=data_format,
                    jpeg_encoding=False,
                )
            except (ValueError, TypeError, OSError) as error:
                raise UserError(f"Minari does not make {name!r}: {' '.join(str(error).split())[:300]}") from error
    return made


def _minari() -> Any:
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError as error:
        raise UserError("Minari is not installed: pip install 'touchdown[minari]'") from error
    return minari


def _load(name: str) -> Any:
    minari = _minari()
    directory = next((path for path in (Path(name), Path(name) / "data") if (path / "metadata.json").is_file()), None)
    try:
        return minari.MinariDataset(directory) if directory else minari.load_dataset(name)
    except Exception as error:  # whatever it makes of a damaged file
        words = " ".join(str(error).split())[:300]
        raise UserError(f"no dataset of Minari's named {name}, or it is damaged: {words}") from error


def _known(ours: Space | None, theirs: Any, what: str) -> Space:
    if ours is None:
        raise UserError(f"its {what} are {theirs}: no policy of Touchdown's has such")
    return ours


def _batch(episode: Any, observation: Space, action: Space) -> EpisodeBatch:
    """One episode; Minari's has an observation more than steps."""
    rewards = np.asarray(episode.rewards, np.float32).reshape(-1)
    steps = len(rewards)
    seen = _column(observation, episode.observations, steps + 1)
    terminated = np.array([bool(episode.terminations[-1])])
    return EpisodeBatch(
        observations=trees.rows(seen, slice(0, steps)),
        actions=_column(action, episode.actions, steps),
        rewards=rewards,
        notes={},
        segment_lengths=np.array([steps], np.int32),
        final_observations=trees.rows(seen, slice(steps, steps + 1)),
        terminated=terminated,
        truncated=~terminated,
        policy_version=np.zeros(1, np.int64),
        episode_returns=np.array([np.sum(episode.rewards, dtype=np.float64)]),
        episode_lengths=np.array([steps]),
    )


def _column(space: Space, values: Any, count: int) -> Tree:
    """Minari's values, an array or a tree of them, as a column of ours."""
    if isinstance(space, Parts):
        return {
            name: _column(part, values[int(name)] if space.is_tuple else values[name], count)
            for name, part in space.spaces.items()
        }
    array = np.asarray(values)
    if array.size != count * int(np.prod(space.shape)):
        raise ValueError(f"{array.shape} where {count} of {space.in_words()} should be")
    return array.reshape(count, *space.shape).astype(space.dtype)


def _buffers(dataset: Dataset, index: int, env: gymnasium.Env[Any, Any]) -> list[Any]:
    """The episodes of a part as Minari takes them."""
    from minari.data_collector import EpisodeBuffer

    batch = dataset.part(index)
    ends = np.cumsum(batch.segment_lengths)
    buffers = []
    for episode, (stop, length) in enumerate(zip(ends.tolist(), batch.segment_lengths.tolist(), strict=True)):
        one, steps = batch.segments(episode, episode + 1), slice(stop - length, stop)
        whole, after = dataset.observation.restored(
            one.observations, one.final_observations, one.earlier, one.segment_lengths
        )
        ended = np.arange(length) == length - 1
        buffers.append(
            EpisodeBuffer(
                observations=_theirs(trees.concatenate([whole, after]), env.observation_space),
                actions=_theirs(trees.rows(batch.actions, steps), env.action_space),
                rewards=[*one.rewards.tolist()],
                terminations=[*(ended & one.terminated).tolist()],
                truncations=[*(ended & one.truncated).tolist()],
                infos={},
            )
        )
    return buffers


def _theirs(values: Any, space: Any) -> Any:
    """A column of ours as Minari takes it."""
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(_theirs(values[str(i)], part) for i, part in enumerate(space))
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: _theirs(values[name], part) for name, part in space.items()}
    return values.astype(space.dtype)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    console = Console()
    with one_line_errors(_PROG):
        words = sys.argv[1:] if arguments is None else arguments
        command: Any = parse(_COMMANDS, words, None, _PROG, __doc__ or "")  # type: ignore[arg-type]
        with console.status("converting"):
            if isinstance(command, InCommand):
                dataset = from_minari(command.dataset, command.to, command.env)
                write_card(dataset)
                told = dataset.location
            else:
                dataset = open_dataset(command.dataset)
                require_named(dataset.env_id, command.module)
                to_minari(dataset, command.to, command.data_format)
                told = command.to
        say(console, f"{told}: {dataset.num_episodes:,} episodes, {dataset.num_steps:,} steps")
