"""What ``POST /act`` takes and answers, and what a mistake in it gets: a problem (RFC 9457) that names the field."""

from __future__ import annotations

import functools
import json
import math
from typing import Annotated, Any

import msgspec
import numpy as np

from actors.parts import Parts
from actors.pictures import Picture, pictures_in
from actors.spaces import Box, Space
from actors.spec import PolicySpec
from actors.trees import Array, Tree

MOST_OBSERVATIONS = 4096
"""In one request."""

MOST_NUMBERS = 2**24
"""That the observations of a request may be to a network, one-hot where they are discrete: 64 MiB."""
_LONGEST = 200
"""Characters of a request that a problem repeats."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Problem(Exception):
    """A request that is not met: becomes an application/problem+json body.

    Args:
        status: the HTTP status.
        detail: one line: what was wrong and what would be right.
        field: where in the request, such as ``observations[3]``; None: not in its body.
        retry_after: seconds after which it may be met, for a 503.
    """

    def __init__(self, status: int, detail: str, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.retry_after = status, detail, field, retry_after


MOST_REWARD = 1e30
"""That an environment gives or somebody asks for: a float32 that takes as much away stays one."""
Reward = Annotated[float, msgspec.Meta(ge=-MOST_REWARD, le=MOST_REWARD)]


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /act``. The observations stay as they came until it is known which policy they are for."""

    observation: msgspec.Raw = msgspec.Raw()
    observations: msgspec.Raw = msgspec.Raw()
    deterministic: bool | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    policy: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    memory: str | None = None
    memories: list[str | None] | None = None
    reward: Reward | None = None
    rewards: list[Reward | None] | None = None
    target_return: Reward | None = None
    target_returns: list[Reward | None] | None = None


_requests = msgspec.json.Decoder(ActRequest)
_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Anything of ours as JSON."""
    return bytes(_encoder.encode(value))


def decode(body: bytes) -> ActRequest:
    """Read a request, but for its observations.

    Raises:
        Problem: 400 if it is not JSON, 422 if a field is unknown or of a wrong type.
    """
    try:
        request = _requests.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`") or _quoted(message) or ""
        raise Problem(422, _plain(message)[:_LONGEST], field[:_LONGEST] or None) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Problem(400, f"the body is not JSON: {error}", _not_finite(body)) from None
    if bool(request.observation) == bool(request.observations):
        given = "both are given" if request.observation else "neither is given"
        raise Problem(422, f"give either observation or observations; {given}", "observation")
    return request


def observations_of(request: ActRequest, spec: PolicySpec) -> Tree:
    """The request's observations: a column of the policy's space, of one row for a single one.

    Raises:
        Problem: 422: not values of that space, too many, or beyond the range of float32.
    """
    single = bool(request.observation)
    field = "observation" if single else "observations"
    one, many = _decoders(spec.observation)
    try:
        values = [one.decode(request.observation)] if single else many.decode(request.observations)
    except (msgspec.MsgspecError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `$")
        raise Problem(422, f"{_plain(message)}; {_takes(spec)}", f"{field}{path.rstrip('`')}") from None
    if len(values) * spec.seen.inputs > MOST_NUMBERS:
        most = max(1, MOST_NUMBERS // spec.seen.inputs)
        raise Problem(422, f"{len(values)} observations at once; {spec.env_id} takes {most} in a request", field)
    return _column(spec, spec.observation, values, field, "", single)


def _takes(spec: PolicySpec) -> str:
    """What is right, in words; of pictures also how many bytes."""
    pictures = [(f"{name} as " if name else "") + f"{one.inputs} bytes" for name, one in pictures_in(spec.observation)]
    in_base64 = f", or in base64 {', '.join(pictures)}" if pictures else ""
    return f"{spec.env_id} takes {spec.observation.in_words()}{in_base64}"


def _column(spec: PolicySpec, space: Space, values: list[Any], field: str, part: str, single: bool) -> Tree:
    """Decoded values of a space, or of a part of it, as a column."""
    if isinstance(space, Parts):
        columns = {}
        for i, (name, inner) in enumerate(space.spaces.items()):
            path = f"{part}[{i}]" if space.is_tuple else f"{part}.{name}"
            mine = [value[i] if space.is_tuple else getattr(value, f"part_{i}") for value in values]
            columns[name] = _column(spec, inner, mine, field, path, single)
        return columns
    if isinstance(space, Picture):  # whose numbers are checked as they are decoded
        return np.stack([_pixels(value, space) for value in values])
    array = np.array(values)
    wrong = np.abs(array) > _FLOAT32_MAX
    has_no_range = isinstance(space, Box) or bool(wrong.any())
    if not has_no_range:
        wrong = space.outside(array)
    if wrong.any():
        out_of_range = f"number out of range; {_takes(spec)}"
        why = "number beyond the range of 32-bit floats" if has_no_range else out_of_range
        first, *rest = np.argwhere(wrong)[0]
        indices = "".join(f"[{index}]" for index in rest)
        raise Problem(422, why, f"{field}{'' if single else f'[{first}]'}{part}{indices}")
    return array.astype(space.dtype)


def _pixels(value: Any, space: Picture) -> Array:
    """A decoded picture: its bytes, or nested lists of them."""
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8).reshape(space.shape)
    return np.array(value, np.uint8)


@functools.cache
def _decoders(space: Space) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    """Decoders of JSON: of one observation of this space, and of a list of them."""
    kind = _kind(space)
    several = Annotated[list[kind], msgspec.Meta(min_length=1, max_length=MOST_OBSERVATIONS)]  # type: ignore[valid-type]
    return msgspec.json.Decoder(kind), msgspec.json.Decoder(several)


def _kind(space: Space) -> Any:
    """The type that a value is decoded to."""
    if isinstance(space, Parts):
        kinds = [_kind(part) for part in space.spaces.values()]
        if space.is_tuple:
            return tuple[tuple(kinds)]  # type: ignore[misc]
        fields = [(f"part_{i}", kind) for i, kind in enumerate(kinds)]  # whatever the parts are called
        names = {f"part_{i}": name for i, name in enumerate(space.spaces)}
        return msgspec.defstruct("Observation", fields, rename=names, forbid_unknown_fields=True)
    is_picture = isinstance(space, Picture)
    kind: Any = float if isinstance(space, Box) else Annotated[int, msgspec.Meta(ge=0, le=255)] if is_picture else int
    for size in reversed(space.shape):
        kind = Annotated[list[kind], msgspec.Meta(min_length=size, max_length=size)]
    if is_picture:  # in base64, which takes a twentieth of the time of lists
        kind |= Annotated[bytes, msgspec.Meta(min_length=space.inputs, max_length=space.inputs)]
    return kind


def _not_finite(body: bytes) -> str | None:
    """Where a body holds a NaN or an infinity, which Python writes and JSON does not have."""

    def search(value: Any, path: str) -> str | None:
        if isinstance(value, float) and not math.isfinite(value):
            return path
        items = [(f"{path}[{i}]", item) for i, item in enumerate(value)] if isinstance(value, list) else []
        items += [(f"{path}.{name}", item) for name, item in value.items()] if isinstance(value, dict) else []
        return next(filter(None, (search(item, place) for place, item in items)), None)

    try:
        data = json.loads(body)
        fields = data.items() if isinstance(data, dict) else ()
        return next(filter(None, (search(value, name) for name, value in fields)), None)
    except (ValueError, RecursionError):
        return None


def _plain(message: str) -> str:
    """msgspec's words without its Markdown, and in small letters."""
    message = message.replace("`", "").replace("object contains", "the body has")
    return message[:1].lower() + message[1:]


def _quoted(message: str) -> str | None:
    """The field that a message about the whole body names, such as an unknown one."""
    return message.split("`")[-2] if message.count("`") >= 2 and "field" in message else None


def problem_body(problem: Problem, title: str) -> bytes:
    """The problem as JSON."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": problem.status, "detail": problem.detail}
    if problem.field:
        body["field"] = problem.field
    return encode(body)
