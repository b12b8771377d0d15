"""A client of the service, synchronous and asynchronous: connections are kept, and what failed is tried again.

Every request here is a pure function of its body, so that it is safe to send again whatever happened to the first: a
connection lost in the middle, a replica that died, a service that is too busy and says when to come back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import httpx2
import msgspec
import numpy as np
import numpy.typing as npt
import stamina

from actors.episode import Array
from actors.errors import UserError

_SERVER_ERRORS = (500, 502, 503, 504)
"""Not the service's own but for 503: those of what stands in front of it while a replica comes or goes. So is a 404
that is no problem: it does not know the service yet."""


_SHOWN = ("probabilities", "q_values", "mean", "std")


class Action(NamedTuple):
    """What a policy does, given one observation or, with a leading axis more, many."""

    action: Any
    """A number of a discrete action, or components; of many observations an array. Where actions have parts a
    dictionary or a tuple of these, of many observations a list of such.

    What follows is then by the names of the parts that have it."""
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


class RequestError(UserError):
    """The service refused a request, for a reason that trying again does not change."""


class UnavailableError(Exception):
    """The service cannot answer now.

    Args:
        response: what it said.
    """

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"{response.status_code} {response.reason_phrase}: {response.text[:200]}")
        try:
            self.retry_after = float(response.headers.get("retry-after", "nan"))
        except ValueError:
            self.retry_after = float("nan")


Observation = npt.ArrayLike | Mapping[str, Any] | Sequence[Any]
"""Numbers, or where an environment's observations have parts a dictionary or a tuple of them."""


class _Client:
    """What both clients share."""

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        policy: str | None = None,
        token: str | None = None,
        timeout: float = 10.0,
        patience: float = 30.0,
    ) -> None:
        self._policy = policy
        self._patience = patience
        self._options: dict[str, Any] = {
            "base_url": address,
            "timeout": timeout,
            "headers": {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})},
        }

    def _attempts(self) -> Any:
        """Contexts that each hold one attempt, to iterate over with ``for`` or ``async for``."""
        return stamina.retry_context(
            on=_wait_for, attempts=None, timeout=self._patience, wait_initial=0.02, wait_jitter=0.1, wait_max=2.0
        )

    def _body(self, observations: Observation, many: bool, **options: Any) -> bytes:
        body = {"observations" if many else "observation": _plain(observations, many), "policy": self._policy}
        given = {name: value for name, value in (body | options).items() if value is not None}
        return bytes(msgspec.json.encode(given, enc_hook=_number))


def _plain(observations: Any, many: bool = False) -> Any:
    """Arrays as lists, in dictionaries and tuples too; pictures, of uint8, as their bytes, which become base64."""
    if isinstance(observations, Mapping):
        return {name: _plain(part) for name, part in observations.items()}
    if isinstance(observations, tuple) or (isinstance(observations, list) and not _is_array(observations)):
        return [_plain(part) for part in observations]
    array = np.asarray(observations)
    if array.dtype == np.uint8 and array.ndim >= 2 + many:
        return [picture.tobytes() for picture in array] if many else array.tobytes()
    return array.astype(np.int8).tolist() if array.dtype == bool else array.tolist()


def _number(value: Any) -> Any:
    """A number of numpy's, such as the reward of many environments, as one of Python's; of an array a list."""
    return np.asarray(value, np.float64).tolist()


def _is_array(values: list[Any]) -> bool:
    """Whether a list, nested it may be, is of numbers in the shape of an array."""
    try:
        return np.asarray(values).dtype.kind in "biuf"
    except ValueError:
        return False


def _wait_for(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds."""
    if isinstance(error, UnavailableError) and error.retry_after >= 0:
        return error.retry_after * random.uniform(1, 1.5)  # not all at the same moment
    return isinstance(error, UnavailableError | httpx2.TransportError)


def _read(response: httpx2.Response) -> Any:
    """The answer's JSON.

    Raises:
        RequestError: the service refused.
    """
    problem = response.headers.get("content-type", "").startswith("application/problem+json")
    if response.status_code in _SERVER_ERRORS or (response.status_code == 404 and not problem):
        raise UnavailableError(response)
    try:
        data = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        data = {}
    if response.is_success:
        return data
    field = f" ({data['field']})" if "field" in data else ""
    raise RequestError(f"{response.status_code}: {data.get('detail', response.reason_phrase)}{field}")


def _action(data: Any, many: bool) -> Action:
    shown = {name: _arrays(data[name]) if name in data else None for name in _SHOWN}
    action = _action_of(_arrays(data["actions" if many else "action"]))
    memory = data.get("memories" if many else "memory")
    return Action(action, **shown, policy=data["policy"], version=data["version"], memory=memory)


def _arrays(answer: Any) -> Any:
    """Lists of numbers as arrays, in objects of parts too, and in lists of these."""
    if isinstance(answer, dict):
        return {name: _arrays(part) for name, part in answer.items()}
    if isinstance(answer, list):
        return [_arrays(part) for part in answer] if isinstance(answer[0], dict) else np.asarray(answer)
    return answer


def _action_of(answer: Any) -> Any:
    """An action as the environment takes it: with a tuple where parts are called 0, 1, …"""
    if isinstance(answer, list):
        return [*map(_action_of, answer)]
    if not isinstance(answer, dict):
        return answer
    parts = {name: _action_of(part) for name, part in answer.items()}
    return (*parts.values(),) if [*parts] == [str(i) for i in range(len(parts))] else parts


class PolicyClient(_Client):
    """Asks a served policy what to do.

    Args:
        address: of the service, such as ``http://127.0.0.1:8000``.
        policy: the policy to ask; None: the service's first.
        token: the bearer token, if the service asks for one.
        timeout: seconds for one attempt.
        patience: seconds after which what still fails is given up.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = httpx2.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def act(
        self,
        observation: Observation,
        deterministic: bool | None = None,
        seed: int | None = None,
        memory: str | None = None,
        reward: float | None = None,
        target_return: float | None = None,
    ) -> Action:
        """What to do, given one observation [*obs].

        Args:
            observation: as the environment gives it.
            deterministic: take the most likely action; False: sample; None: as the policy does of itself.
            seed: makes what is sampled repeatable.
            memory: of the answer to the episode's step before; None: it begins.
            reward: what the environment gave since, of a policy that acts for a return.
            target_return: for which it acts, where an episode begins; None: its own.

        Raises:
            RequestError: the observation does not fit, or the token is wrong.
            UnavailableError: it stayed too busy for all the client's patience.
            httpx2.TransportError: it could not be reached for as long.
        """
        body = self._body(
            observation,
            many=False,
            deterministic=deterministic,
            seed=seed,
            memory=memory,
            reward=reward,
            target_return=target_return,
        )
        return _action(self._post(body), False)

    def act_many(
        self,
        observations: Observation,
        deterministic: bool | None = None,
        seed: int | None = None,
        memories: Sequence[str | None] | None = None,
        rewards: Sequence[float | None] | Array | None = None,
        target_returns: Sequence[float | None] | Array | None = None,
    ) -> Action:
        """The same for many observations [n, *obs] in one request."""
        body = self._body(
            observations,
            many=True,
            deterministic=deterministic,
            seed=seed,
            memories=memories,
            rewards=rewards,
            target_returns=target_returns,
        )
        return _action(self._post(body), True)

    @contextlib.contextmanager
    def episode(self, target_return: float | None = None) -> Iterator[Episode]:
        """An episode to act in, from its first step; what a policy remembers of it goes to and fro by itself.

        Args:
            target_return: for which a policy acts that acts for one; None: its own.
        """
        yield Episode(self, target_return)

    def policies(self) -> list[dict[str, Any]]:
        """What is served."""
        for attempt in self._attempts():
            with attempt:
                found: list[dict[str, Any]] = _read(self._http.get("/policies"))["policies"]
        return found

    def _post(self, body: bytes) -> Any:
        for attempt in self._attempts():
            with attempt:
                return _read(self._http.post("/act", content=body))


class AsyncPolicyClient(_Client):
    """PolicyClient for asyncio: the same arguments, and methods to await."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = httpx2.AsyncClient(**self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def act(
        self,
        observation: Observation,
        deterministic: bool | None = None,
        seed: int | None = None,
        memory: str | None = None,
        reward: float | None = None,
        target_return: float | None = None,
    ) -> Action:
        """The action for one observation, of the shape that the policy takes."""
        body = self._body(
            observation,
            many=False,
            deterministic=deterministic,
            seed=seed,
            memory=memory,
            reward=reward,
            target_return=target_return,
        )
        return _action(await self._post(body), False)

    async def act_many(
        self,
        observations: Observation,
        deterministic: bool | None = None,
        seed: int | None = None,
        memories: Sequence[str | None] | None = None,
        rewards: Sequence[float | None] | Array | None = None,
        target_returns: Sequence[float | None] | Array | None = None,
    ) -> Action:
        """The actions for several observations, one a row."""
        body = self._body(
            observations,
            many=True,
            deterministic=deterministic,
            seed=seed,
            memories=memories,
            rewards=rewards,
            target_returns=target_returns,
        )
        return _action(await self._post(body), True)

    @contextlib.asynccontextmanager
    async def episode(self, target_return: float | None = None) -> AsyncIterator[AsyncEpisode]:
        """An episode to act in, from its first step; what a policy remembers of it goes to and fro by itself."""
        yield AsyncEpisode(self, target_return)

    async def policies(self) -> list[dict[str, Any]]:
        """The policies that are served, as ``GET /policies`` tells them."""
        async for attempt in self._attempts():
            with attempt:
                found: list[dict[str, Any]] = _read(await self._http.get("/policies"))["policies"]
        return found

    async def _post(self, body: bytes) -> Any:
        async for attempt in self._attempts():
            with attempt:
                return _read(await self._http.post("/act", content=body))


class _Episode:
    """What both kinds of episodes keep between two steps."""

    def __init__(self, client: Any, target_return: float | None) -> None:
        self._client = client
        self._memory: str | None = None
        self._target_return = target_return

    def _options(self, reward: float | None, deterministic: bool | None, seed: int | None) -> dict[str, Any]:
        target = self._target_return if self._memory is None else None
        return {
            "reward": reward,
            "deterministic": deterministic,
            "seed": seed,
            "memory": self._memory,
            "target_return": target,
        }


class Episode(_Episode):
    """One episode of a policy that may remember: see ``PolicyClient.episode``."""

    def act(
        self,
        observation: Observation,
        reward: float | None = None,
        *,
        deterministic: bool | None = None,
        seed: int | None = None,
    ) -> Action:
        """What to do at the episode's next step, as ``PolicyClient.act``.

        Args:
            observation: as the environment gives it.
            reward: what it gave with it, of a policy that acts for a return; None at the first step.
            deterministic: take the most likely action; False: sample; None: as the policy does of itself.
            seed: makes what is sampled repeatable.
        """
        action: Action = self._client.act(observation, **self._options(reward, deterministic, seed))
        self._memory = action.memory
        return action


class AsyncEpisode(_Episode):
    """The same for asyncio: see ``AsyncPolicyClient.episode``."""

    async def act(
        self,
        observation: Observation,
        reward: float | None = None,
        *,
        deterministic: bool | None = None,
        seed: int | None = None,
    ) -> Action:
        """What to do at the episode's next step."""
        action: Action = await self._client.act(observation, **self._options(reward, deterministic, seed))
        self._memory = action.memory
        return action
