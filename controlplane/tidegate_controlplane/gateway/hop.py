"""What a replica is asked, and its answer, told apart by what can be done when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from tidegate_controlplane.errors import UpstreamFailed
from tidegate_controlplane.gateway.replica import Ask

EVENT_STREAM = "text/event-stream"
OK = 200
TOO_MANY = 429
REPLICA_AT_FAULT = frozenset({401, 403, 502, 503})
"""Statuses that speak of the replica, not of the request: a wrong token, or not able now."""
FULL = (b'"engine_overloaded"', b'"replica_draining"', b'"adapters_busy"')
"""Codes of a replica that takes nothing now and is not at fault."""
ELSEWHERE = (b'"adapter_unavailable"',)
"""Codes of a fault that is not the replica's, so that another one would say the same."""
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


class AnswerBroken(Exception):
    """An answer ended before its end."""


class Content(Protocol):
    """An answer's bytes as they come. Raises what is in `BROKEN` when they end too early."""

    async def read(self, n: int = -1, /) -> bytes:
        """At most `n` of them; all that are left when it is -1."""
        ...

    async def readany(self) -> bytes:
        """Some, as soon as there are any; none at the end."""
        ...


class Reply(Protocol):
    """A replica's answer, from its head on. Whoever got one closes it."""

    @property
    def status(self) -> int: ...

    @property
    def content_type(self) -> str:
        """Without parameters."""
        ...

    @property
    def content(self) -> Content: ...

    def close(self) -> None:
        """Read no more: the replica stops its work."""
        ...


BROKEN = (aiohttp.ClientError, ConnectionError, AnswerBroken)


async def beginning(response: Reply, *, whole: bool) -> bytes:
    """The first bytes of an answer, or all of it. Raises ReplicaFailed and ReplicaFull."""
    try:
        if response.status in REPLICA_AT_FAULT or response.status == TOO_MANY:
            said = await response.content.read(MOST_REFUSAL_BYTES)
            if response.status == TOO_MANY or any(code in said for code in FULL):
                raise ReplicaFull
            if is_elsewhere(response.status, said):
                return said
            raise ReplicaFailed(f"it answered {response.status}")
        if response.content_type not in ("application/json", EVENT_STREAM):
            raise ReplicaFailed(f"it answered {response.status}")  # not in our shapes
        if whole or response.status != OK:
            return await response.content.read()
        return await response.content.readany()
    except BROKEN as error:
        raise ReplicaFailed(type(error).__name__) from error


def is_elsewhere(status: int, said: bytes) -> bool:
    """Whether an answer tells of a fault that is not the replica's."""
    return status in REPLICA_AT_FAULT and any(code in said for code in ELSEWHERE)


async def pieces(
    first: bytes,
    response: Reply,
    limit: Callable[[], AbstractAsyncContextManager[object]],
    on_broken: Callable[[], None],
) -> AsyncIterator[bytes]:
    """An answer as it comes, `first` first; each wait for more is within a `limit`.

    Raises UpstreamFailed when it ends before its end, after a call of `on_broken`.
    """
    yield first
    while True:
        try:
            async with limit():
                piece = await response.content.readany()
        except BROKEN as error:
            on_broken()
            raise UpstreamFailed(
                "the replica stopped in the middle of its answer; try again"
            ) from error
        if not piece:
            return
        yield piece
