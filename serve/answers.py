"""What a client sends of observations, and what it makes of the service's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.episode import Array

_SHOWN = ("probabilities", "q_values", "mean", "std")


class Action(NamedTuple):
    """What a policy does, given one observation or, with a leading axis more, many."""

    action: Any
    """A number of a discrete action, or components; of many observations an array. Where actions have parts a
    dictionary or a tuple of these, of many observations a list of such; probabilities, means and deviations are then
    dictionaries, by the names of the parts that have some."""
    probabilities: Any
    """[A] of discrete actions, or [n, A]; None: continuous ones, or a policy that goes by q-values."""
    q_values: Array | None
    """[A] of discrete actions, or [n, A], where a policy goes by them: the return that is expected of each, discounted
    and in the units of the rewards that were learned from."""
    mean: Any
    """Means of continuous actions' components; None where actions are not continuous."""
    std: Any
    """Standard deviations of continuous actions' components; of many observations a row each where they differ."""
    policy: str
    version: int
    memory: Any = None
    """What to send with the same episode's next observation, of many a list; None: the policy remembers nothing."""


Observation = npt.ArrayLike | Mapping[str, Any] | Sequence[Any]
"""Numbers, or where an environment's observations have parts a dictionary or a tuple of them."""


def plain(observations: Any, many: bool = False) -> Any:
    """Arrays as lists, in dictionaries and tuples too; pictures, of uint8, as their bytes, which become base64."""
    if isinstance(observations, Mapping):
        return {name: plain(part) for name, part in observations.items()}
    if isinstance(observations, tuple) or (isinstance(observations, list) and not _is_array(observations)):
        return [plain(part) for part in observations]
    array = np.asarray(observations)
    if array.dtype == np.uint8 and array.ndim >= 2 + many:
        return [picture.tobytes() for picture in array] if many else array.tobytes()
    return array.astype(np.int8).tolist() if array.dtype == bool else array.tolist()


def number(value: Any) -> Any:
    """A number of numpy's, such as the reward of many environments, as one of Python's; of an array a list."""
    return np.asarray(value, np.float64).tolist()


def _is_array(values: list[Any]) -> bool:
    """Whether a list, nested it may be, is of numbers in the shape of an array."""
    try:
        return np.asarray(values).dtype.kind in "biuf"
    except ValueError:
        return False


def action_of(data: Any, many: bool) -> Action:
    """The answer to one observation, or to many, of its JSON."""
    shown = {name: _arrays(data[name]) if name in data else None for name in _SHOWN}
    action = _flown(_arrays(data["actions" if many else "action"]))
    memory = data.get("memories" if many else "memory")
    return Action(action, **shown, policy=data["policy"], version=data["version"], memory=memory)


def _arrays(answer: Any) -> Any:
    """Lists of numbers as arrays, in objects of parts too, and in lists of these."""
    if isinstance(answer, dict):
        return {name: _arrays(part) for name, part in answer.items()}
    if isinstance(answer, list):
        return [_arrays(part) for part in answer] if isinstance(answer[0], dict) else np.asarray(answer)
    return answer


def _flown(answer: Any) -> Any:
    """An action as the environment takes it: with a tuple where parts are called 0, 1, …"""
    if isinstance(answer, list):
        return [*map(_flown, answer)]
    if not isinstance(answer, dict):
        return answer
    parts = {name: _flown(part) for name, part in answer.items()}
    return (*parts.values(),) if [*parts] == [str(i) for i in range(len(parts))] else parts
