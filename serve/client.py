"""A client of the service, synchronous and asynchronous: connections are kept, and what failed is tried again.

Every request here is a pure function of its body, so that it is safe to send again whatever happened to the first: a
connection lost in the middle, a replica that died, a service that is too busy and says when to come back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

import httpx2
import msgspec
import stamina

from actors.episode import Array
from actors.errors import UserError
from serve.answers import Action, Observation, action_of, number, plain

_SERVER_ERRORS = (500, 502, 503, 504)
"""Not the service's own but for 503: those of what stands in front of it while a replica comes or goes. So is a 404
that is no problem: it does not know the service yet."""


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
        body = {"observations" if many else "observation": plain(observations, many), "policy": self._policy}
        given = {name: value for name, value in (body | options).items() if value is not None}
        return bytes(msgspec.json.encode(given, enc_hook=number))


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
        return action_of(self._post(body), False)

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
        return action_of(self._post(body), True)

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
        return action_of(await self._post(body), False)

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
        return action_of(await self._post(body), True)

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
