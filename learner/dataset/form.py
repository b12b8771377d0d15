"""Form: what a dataset's episodes are of, and the columns that follow from it: dataset.json."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from actors.environment_name import parse
from actors.errors import UserError
from actors.files import json_text, read_json
from actors.parts import Parts, leaf_spaces
from actors.pictures import Picture
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.spec import read_space
from learner.keeping.storage import Storage

DATASET_FILE = "dataset.json"
FORMAT = 1
"""The version of dataset.json and of parts; it counts up when an older reader would misread them."""
_FIELDS = ("format", "env_id", "observation", "action")


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a part: its type, the shape of one row, and whether it has a row for each step or each episode."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    per_step: bool = False


@dataclasses.dataclass(frozen=True)
class Form:
    """The environment and the spaces that all episodes of a dataset are of.

    Raises:
        UserError: no environment has such a name, or actions are of a kind that no policy takes.
    """

    env_id: str
    """The Gymnasium id of the environment that was flown."""
    observation: Space
    """What was seen."""
    action: Space
    """What was done, as the environment takes it."""

    def __post_init__(self) -> None:
        parse(self.env_id)
        for _, space in leaf_spaces(self.action):
            action_dtype(space)

    def columns(self) -> dict[str, Column]:
        """The columns of each part, by their names, with dots where they are parts of a tree.

        They are those of an EpisodeBatch of whole episodes, without notes and memories; actions are as the environment
        takes them, and ``source`` says which of the part's sources flew an episode.
        """
        steps: dict[str, tuple[str, tuple[int, ...]]] = {}
        earlier: dict[str, tuple[str, tuple[int, ...]]] = {}
        _add_leaves(self.observation, "", steps, earlier)
        columns = {
            f"observations{name}": Column(np.dtype(dtype), shape, True) for name, (dtype, shape) in steps.items()
        }
        for name, space in leaf_spaces(self.action, "actions"):
            columns[name] = Column(action_dtype(space), space.shape, True)
        columns |= {"rewards": Column(np.dtype(np.float32), (), True)}
        columns |= {
            f"final_observations{name}": Column(np.dtype(dtype), shape) for name, (dtype, shape) in steps.items()
        }
        columns |= {f"earlier{name}": Column(np.dtype(dtype), shape) for name, (dtype, shape) in earlier.items()}
        return columns | {name: Column(np.dtype(dtype)) for name, dtype in PER_EPISODE.items()}

    def require_same(self, other: Form, location: object) -> None:
        """Make sure that another's episodes can stand beside those that a dataset holds.

        Raises:
            UserError: they are of another environment, or of other spaces.
        """
        if self.env_id != other.env_id:
            raise UserError(
                f"{location} holds episodes of {self.env_id}, not of {other.env_id}: give another directory"
            )
        for name, mine, theirs in (
            ("observation", self.observation, other.observation),
            ("action", self.action, other.action),
        ):
            if mine.form != theirs.form:
                raise UserError(
                    f"{location} holds episodes whose {name} is {mine.in_words()}, not {theirs.in_words()}: "
                    f"give another directory"
                )

    def json(self) -> bytes:
        """The contents of dataset.json."""
        return f"{json_text({'format': FORMAT, **dataclasses.asdict(self)})}\n".encode()


PER_EPISODE = {
    **{"segment_lengths": "int32", "terminated": "bool", "truncated": "bool", "policy_version": "int64"},
    **{"episode_returns": "float64", "source": "int32"},
}
"""The columns of one number an episode, and their types."""


def kept_actions(space: Space, actions: Any) -> Any:
    """A copy of actions as the environment takes them, in the types of a dataset's columns."""
    if isinstance(space, Parts):
        return {name: kept_actions(part, actions[name]) for name, part in space.spaces.items()}
    return actions.astype(action_dtype(space))


def action_dtype(space: Space) -> np.dtype[Any]:
    """The smallest type that holds actions as the environment takes them.

    Raises:
        UserError: no policy takes actions of this kind.
    """
    if isinstance(space, Box):
        return np.dtype(np.float32)
    if isinstance(space, MultiBinary):
        return np.dtype(np.int8)
    if isinstance(space, Discrete):
        ends = np.array([space.start, space.start + space.n - 1])
    elif isinstance(space, MultiDiscrete):
        ends = np.concatenate([space.first, space.first + np.array(space.nvec) - 1])
    else:
        raise UserError(f"actions of kind {space.kind} cannot be recorded")
    return next(
        dtype
        for dtype in map(np.dtype, ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64"))
        if np.iinfo(dtype).min <= ends.min() and ends.max() <= np.iinfo(dtype).max
    )


def read_form(storage: Storage) -> Form:
    """The form of the dataset at a place.

    Raises:
        UserError: there is none, it is damaged, or of another version of the format.
    """
    try:
        data = storage.read(DATASET_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no dataset in {storage}: {DATASET_FILE} is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {storage}: {error.strerror or error}") from error
    origin = f"{storage}/{DATASET_FILE}"
    fields = read_json(data, origin)
    if not isinstance(fields, dict) or "format" not in fields:
        raise UserError(f"{origin} is damaged: it does not say its format")
    if fields["format"] != FORMAT:
        raise UserError(
            f"{storage} is a dataset of format {str(fields['format'])[:20]}, and this version of Touchdown reads "
            f"{FORMAT}: read it with the version that wrote it, or record again"
        )
    try:
        if fields.keys() != {*_FIELDS} or not isinstance(fields["env_id"], str):
            raise UserError(f"it must have the fields {', '.join(_FIELDS)} and no others")
        return Form(fields["env_id"], read_space(fields["observation"]), read_space(fields["action"]))
    except ValueError as error:
        raise UserError(f"{origin} is damaged: {error}") from error


def _add_leaves(
    space: Space,
    name: str,
    steps: dict[str, tuple[str, tuple[int, ...]]],
    earlier: dict[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Add the type and shape of a row of each leaf of observations, and of the frames before a segment's first step."""
    if isinstance(space, Parts):
        for part, inner in space.spaces.items():
            _add_leaves(inner, f"{name}.{part}", steps, earlier)
    elif isinstance(space, Picture) and space.has_frames:
        steps[name] = space.dtype, space.shape[1:]
        earlier[name] = space.dtype, (space.frames - 1, *space.shape[1:])
    else:
        steps[name] = space.dtype, space.shape
