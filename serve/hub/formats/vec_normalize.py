"""What Stable-Baselines3's ``VecNormalize`` knows of observations, from the pickle of ``VecNormalize.save``.

The pickle is read by ``inert_pickle``: nothing in it is executed. Of what it holds only the statistics become arrays.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from actors.environments import EnvironmentInfo
from actors.episode import Array
from actors.errors import UserError
from actors.policy import NORMALIZED_LIMIT
from serve.hub.formats.inert_pickle import Record, read_inert

_PACKAGES = ("stable_baselines3", "sb3_contrib", "gymnasium", "gym", "numpy", "collections")
"""Whose classes such a pickle may name."""
_ARRAYS = re.compile(r"numpy\.(core|_core)\.(multiarray\._reconstruct|multiarray\.scalar|numeric\._frombuffer)")
_NUMBERS = re.compile(r"[biuf][1248]")
_MOST_DIMENSIONS = 32
_MOST_BYTES = 64 * 1024**2


@dataclasses.dataclass(frozen=True)
class ObservationStatistics:
    """Observations are standardised as (o - mean) / std, and clipped to ± ``clip``."""

    mean: Array
    """[numbers] float64."""
    std: Array
    """[numbers] float64: √(variance + ε)."""
    clip: float

    def weights(self, env: EnvironmentInfo) -> dict[str, Array]:
        """The weights of a policy that flies that environment.

        Raises:
            UserError: they are of other observations, or clipped where a policy of ours does not clip them.
        """
        seen, space = env.observation, env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or seen.inputs != self.mean.size:
            raise UserError(f"they are of {self.mean.size} numbers, and {env.env_id} gives {seen.in_words()}")
        with np.errstate(all="ignore"):  # what comes of it is looked at
            reach = (np.abs(np.array([space.low, space.high], np.float64).reshape(2, -1) - self.mean) / self.std).max()
            mean, std = self.mean.astype(seen.dtype), self.std.astype(seen.dtype)
        if self.clip != NORMALIZED_LIMIT and not reach <= min(self.clip, NORMALIZED_LIMIT):
            raise UserError(
                f"they clip at ±{self.clip:g} standard deviations (clip_obs); ours are clipped at ±{NORMALIZED_LIMIT:g}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise UserError(f"as {seen.dtype} a mean or a standard deviation is infinite, or the latter zero")
        return {"observation_mean": mean, "observation_std": std}


def statistics_beside(file: Path, slug: str) -> Path | None:
    """Where the statistics of a model are kept, by the habits of rl-baselines3-zoo and of the Hub; None: nowhere.

    Args:
        file: of the model.
        slug: the environment's id, as files are called after it.
    """
    folder = file.parent
    places = [
        folder / f"{file.stem}.vecnormalize.pkl",
        folder / file.stem / "vecnormalize.pkl",
        folder / slug / "vecnormalize.pkl",
        folder / "vecnormalize.pkl",
        folder / "vec_normalize.pkl",
    ]
    return next((place for place in places if place.is_file()), None)


def read_vec_normalize(file: Path) -> ObservationStatistics | None:
    """Read the statistics of observations; None: the file says that they are not normalised.

    Raises:
        UserError: it is missing, damaged or no pickle of VecNormalize; names the file.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
        return _statistics(read_inert(data, _PACKAGES))
    except UserError as error:
        raise UserError(f"{file} holds no statistics of VecNormalize: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def _statistics(saved: Any) -> ObservationStatistics | None:
    if not (isinstance(saved, Record) and saved.name.endswith(".VecNormalize") and isinstance(saved.state, dict)):
        raise UserError("it is the pickle of something else")
    state = saved.state
    if state.get("norm_obs") is False:
        return None
    moments = state.get("obs_rms")
    if isinstance(moments, dict):
        raise UserError("its observations have several parts (a Dict), imported are those of one")
    if not (isinstance(moments, Record) and isinstance(moments.state, dict)):
        raise UserError("its obs_rms is missing")
    mean, variance = (_numbers(moments.state, name) for name in ("mean", "var"))
    epsilon, clip = (_number(state, name) for name in ("epsilon", "clip_obs"))
    if mean.shape != variance.shape:
        raise UserError(f"it has means of shape {mean.shape}, and variances of shape {variance.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        raise UserError("a mean or a variance is not finite, or a variance is negative")
    if not (epsilon >= 0 and clip > 0 and math.isfinite(epsilon)):
        raise UserError(f"its epsilon is {epsilon:g} and its clip_obs {clip:g}, which are to be positive")
    return ObservationStatistics(mean.ravel(), np.sqrt(variance + epsilon).ravel(), clip)


def _number(state: dict[str, Any], name: str) -> float:
    value = state.get(name)
    if isinstance(value, float) or (type(value) is int and abs(value) < 2**63):
        return float(value)
    array = _numbers(state, name)
    if array.size != 1:
        raise UserError(f"its {name} is no number")
    return float(array.item())


def _numbers(state: dict[str, Any], name: str) -> Array:
    """An array of numbers, or a number of NumPy's, as the pickle has its bytes: float64."""
    record = state.get(name)
    try:
        if not isinstance(record, Record):
            raise TypeError
        found = _ARRAYS.fullmatch(record.name)
        if found is None:
            raise TypeError
        order: Any = "C"
        if found[2] == "multiarray._reconstruct":
            _, shape, dtype, is_fortran, data = record.state
            order = "F" if is_fortran else "C"
        elif found[2] == "multiarray.scalar":
            (dtype, data), shape = record.arguments, ()
        else:
            data, dtype, shape, order = record.arguments[:4]
        return _array(data, _dtype(dtype), shape, order)
    except (TypeError, ValueError) as error:
        raise UserError(f"its {name} is no array of numbers") from error


def _array(data: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> Array:
    if not (isinstance(shape, tuple) and len(shape) <= _MOST_DIMENSIONS and all(type(n) is int for n in shape)):
        raise TypeError("a shape is a tuple of whole numbers")
    if not isinstance(data, bytes | bytearray) or min(shape, default=1) < 1:
        raise TypeError("numbers are bytes, one or more")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("the bytes are not as many as the shape has")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order="F" if order == "F" else "C").astype(np.float64)


def _dtype(record: Any) -> np.dtype[Any]:
    """A type of numbers, or TypeError; ``numpy.dtype('f8', …)`` with the state (version, '<', …)."""
    if not (isinstance(record, Record) and record.name == "numpy.dtype" and isinstance(record.state, tuple)):
        raise TypeError("no type of numbers")
    (code, *_), (_, order, *_) = record.arguments, record.state
    if not (isinstance(code, str) and _NUMBERS.fullmatch(code) and order in ("<", ">", "|", "=")):
        raise TypeError("no type of numbers")
    dtype: np.dtype[Any] = np.dtype(order + code)
    return dtype
