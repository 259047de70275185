"""One request to one replica over HTTP, told apart by what can be done when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from tidegate.protocol.replica import PRIORITY_HEADER, PROJECT_HEADER, REQUEST_HEADER
from tidegate_controlplane.errors import UpstreamFailed
from tidegate_controlplane.gateway.replica import Ask, Endpoint
from tidegate_controlplane.gateway.watch import onward_headers

CONNECT_S = 5.0
IDLE_CONNECTION_S = 2.0
"""Shorter than a replica keeps one open, so that a request is not sent into a closing one."""
READ_BYTES = 32 * 1024
"""Of one answer, in memory: a replica is read from no faster than the client takes it."""
EVENT_STREAM = "text/event-stream"
OK = 200
TOO_MANY = 429
REPLICA_AT_FAULT = frozenset({401, 403, 502, 503})
"""Statuses that speak of the replica, not of the request: a wrong token, or not able now."""
FULL = (b'"engine_overloaded"', b'"replica_draining"')
"""Codes of a replica that takes nothing now and is not at fault."""
MOST_REFUSAL_BYTES = 4096


class Listener(Protocol):
    """Who wants to know how a request is getting on."""

    @property
    def wants_text(self) -> bool:
        """Whether to hear the answer as it comes."""
        ...

    def asked(self, replica_id: str) -> None:
        """A replica has the request now; what was heard of another is void."""
        ...

    def heard(self, chunk: dict[str, Any]) -> None:
        """A piece of the answer, in the shape of the endpoint's chunks."""
        ...


@dataclass(frozen=True)
class Question:
    """What a replica is asked."""

    path: str
    body: bytes
    request_id: str
    ask: Ask
    whole: bool
    """Read the answer to its end before believing in it."""
    listener: Listener | None = None


class ReplicaFailed(Exception):
    """A replica gave no usable answer, and nothing of it was passed on."""


class ReplicaGone(ReplicaFailed):
    """Nobody listens there."""


class ReplicaFull(Exception):
    """A replica takes nothing more for now."""


def replica_client() -> aiohttp.ClientSession:
    """The client for talking to replicas: as many connections as needed, no proxy, no patience of
    its own (deadlines are the caller's). Made inside the event loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("user-agent",),
        auto_decompress=False,
        read_bufsize=READ_BYTES,
    )


async def send(
    client: aiohttp.ClientSession, endpoint: Endpoint, question: Question
) -> aiohttp.ClientResponse:
    """The answer's head. Raises ReplicaFailed. The caller closes what is returned."""
    try:
        return await client.post(
            endpoint.url.rstrip("/") + question.path,
            data=question.body,
            headers={
                "authorization": f"Bearer {endpoint.token}",
                "content-type": "application/json",
                "accept-encoding": "identity",
                REQUEST_HEADER: question.request_id,
                PROJECT_HEADER: question.ask.project_id,
                PRIORITY_HEADER: str(question.ask.priority.value),
                **onward_headers(),
            },
            allow_redirects=False,
        )
    except aiohttp.ClientConnectorError as error:
        raise ReplicaGone(type(error).__name__) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ReplicaFailed(type(error).__name__) from error


async def beginning(response: aiohttp.ClientResponse, *, whole: bool) -> bytes:
    """The first bytes of an answer, or all of it. Raises ReplicaFailed and ReplicaFull."""
    try:
        if response.status in REPLICA_AT_FAULT or response.status == TOO_MANY:
            said = await response.content.read(MOST_REFUSAL_BYTES)
            if response.status == TOO_MANY or any(code in said for code in FULL):
                raise ReplicaFull
            raise ReplicaFailed(f"it answered {response.status}")
        if response.content_type not in ("application/json", EVENT_STREAM):
            raise ReplicaFailed(f"it answered {response.status}")  # not in our shapes
        if whole or response.status != OK:
            return await response.content.read()
        return await response.content.readany()
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ReplicaFailed(type(error).__name__) from error


async def pieces(
    first: bytes,
    response: aiohttp.ClientResponse,
    limit: Callable[[], AbstractAsyncContextManager[object]],
) -> AsyncIterator[bytes]:
    """An answer as it comes, `first` first; each wait for more is within a `limit`.

    Raises UpstreamFailed when it ends before its end.
    """
    yield first
    while True:
        try:
            async with limit():
                piece = await response.content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamFailed(
                "the replica stopped in the middle of its answer; try again"
            ) from error
        if not piece:
            return
        yield piece
