"""One request, one replica, and one more when the first fails before it said anything.

A replica is acquired (held for through a cold start), asked with its own token, and its answer
passed on. Until the first byte of the answer the request can be given to another replica, because
nothing has been said to the client; a generation has no effect but its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from tidegate.protocol.replica import PRIORITY_HEADER, PROJECT_HEADER, REQUEST_HEADER, Priority
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import DeadlinePassed, UpstreamFailed
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.watch import Watch, onward_headers

ATTEMPTS = 2
CONNECT_S = 5.0
IDLE_CONNECTION_S = 2.0
"""Shorter than a replica keeps one open, so that a request is not sent into a closing one."""
REPLACE_S = 0.5
"""How long the reconciler is given to withdraw an only replica that failed: its successor is then
waited for, instead of asking the dead one again."""
OK = 200
REPLICA_AT_FAULT = frozenset({401, 403, 502, 503})
"""Statuses that speak of the replica, not of the request: a wrong token, or not able now."""


@dataclass(frozen=True)
class Answer:
    """A whole answer of a replica."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Upstream:
    """An answer of a replica that has begun."""

    status: int
    chunks: AsyncIterator[bytes]
    """Raises UpstreamFailed or DeadlinePassed when the answer ends before its end."""


@dataclass(frozen=True)
class _Task:
    """What a replica is asked, and until when (monotonic seconds)."""

    path: str
    body: bytes
    request_id: str
    project_id: str
    priority: Priority
    whole: bool
    """Read the answer to its end before believing in it."""
    until: float


class _ReplicaFailed(Exception):
    """A replica gave no usable answer, and nothing of it was passed on."""


def replica_client() -> httpx.AsyncClient:
    """The client for talking to replicas: as many connections as needed, no proxy, no patience of
    its own (deadlines are the caller's)."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_CONNECTION_S
        ),
        trust_env=False,
        follow_redirects=False,
    )


class Forwarder:
    """Gives requests to replicas."""

    def __init__(
        self, endpoints: Endpoints, client: httpx.AsyncClient, clock: Clock, watch: Watch
    ) -> None:
        self._endpoints = endpoints
        self._client = client
        self._clock = clock
        self._watch = watch

    async def call(
        self,
        served: Served,
        path: str,
        body: bytes,
        *,
        deadline: float,
        request_id: str,
        run_s: float | None = None,
        priority: Priority = Priority.SYNC,
    ) -> Answer:
        """The replica's whole answer; a refusal of the request (4xx) is one.

        `deadline` (monotonic seconds) bounds the wait for a replica, and everything when `run_s` is
        None; otherwise the replica has `run_s` seconds from when it was found.

        Raises UpstreamFailed when two attempts failed, Unavailable when there is no replica to wait
        for, DeadlinePassed.
        """
        async with AsyncExitStack() as stack:
            task = _Task(
                path, body, request_id, served.project_id, priority, whole=True, until=deadline
            )
            upstream = await self._open(stack, served, task, run_s)
            return Answer(upstream.status, b"".join([chunk async for chunk in upstream.chunks]))

    @asynccontextmanager
    async def stream(
        self,
        served: Served,
        path: str,
        body: bytes,
        *,
        deadline: float,
        request_id: str,
        run_s: float | None = None,
    ) -> AsyncIterator[Upstream]:
        """The replica's answer from its first byte on; as `call` until then.

        Leaving the context closes the connection to the replica, which stops its work.
        """
        async with AsyncExitStack() as stack:
            task = _Task(
                path,
                body,
                request_id,
                served.project_id,
                Priority.SYNC,
                whole=False,
                until=deadline,
            )
            yield await self._open(stack, served, task, run_s)

    async def _open(
        self, stack: AsyncExitStack, served: Served, task: _Task, run_s: float | None
    ) -> Upstream:
        """Enter into `stack` a replica that answers."""
        failed: dict[str, str] = {}
        for _ in range(ATTEMPTS):
            if failed:
                self._watch.retried(served)
                await self._let_be_replaced(served, failed, task.until)
            async with AsyncExitStack() as attempt:
                with self._watch.hold(served):
                    endpoint = await attempt.enter_async_context(
                        self._endpoints.acquire(
                            served.deployment_id, task.until, exclude=frozenset(failed)
                        )
                    )
                seen = attempt.enter_context(self._watch.attempt(served, endpoint.replica_id))
                until = task.until if run_s is None else self._clock.monotonic() + run_s
                try:
                    upstream = await self._ask(attempt, endpoint, task, until)
                except _ReplicaFailed as failure:
                    seen.failed("replica_failed")
                    failed[endpoint.replica_id] = str(failure)
                    self._endpoints.wanted.set()  # the reconciler should look at it now
                else:
                    await stack.enter_async_context(attempt.pop_all())
                    return upstream
        reasons = "; ".join(f"{replica}: {reason}" for replica, reason in failed.items())
        raise UpstreamFailed(
            f"no replica of {served.name!r} answered ({reasons}); try again", retry_after_s=1.0
        )

    async def _let_be_replaced(
        self, served: Served, failed: Collection[str], deadline: float
    ) -> None:
        """Pause when there is no other replica than those that failed."""
        ready = self._endpoints.ready(served.deployment_id)
        if ready and all(endpoint.replica_id in failed for endpoint in ready):
            remaining_s = max(0.0, deadline - self._clock.monotonic())
            await asyncio.sleep(min(REPLACE_S, remaining_s))

    async def _ask(
        self, attempt: AsyncExitStack, endpoint: Endpoint, task: _Task, until: float
    ) -> Upstream:
        """The answer, once its first byte is here. Raises _ReplicaFailed, DeadlinePassed."""
        try:
            async with self._time_until(until):
                response = await self._send(endpoint, task)
                attempt.push_async_callback(response.aclose)
                if _is_replica_at_fault(response):
                    raise _ReplicaFailed(f"it answered {response.status_code}")
                received = response.aiter_raw()
                if task.whole or response.status_code != OK:
                    first = b"".join([chunk async for chunk in received])
                else:
                    first = await anext(received, b"")
        except httpx.TransportError as error:
            raise _ReplicaFailed(type(error).__name__) from error
        return Upstream(response.status_code, self._rest(first, received, until))

    async def _send(self, endpoint: Endpoint, task: _Task) -> httpx.Response:
        request = self._client.build_request(
            "POST",
            endpoint.url.rstrip("/") + task.path,
            content=task.body,
            headers={
                "authorization": f"Bearer {endpoint.token}",
                "content-type": "application/json",
                "accept-encoding": "identity",
                REQUEST_HEADER: task.request_id,
                PROJECT_HEADER: task.project_id,
                PRIORITY_HEADER: str(task.priority.value),
                **onward_headers(),
            },
        )
        return await self._client.send(request, stream=True)

    async def _rest(
        self, first: bytes, received: AsyncIterator[bytes], until: float
    ) -> AsyncIterator[bytes]:
        yield first
        while True:
            try:
                async with self._time_until(until):
                    chunk = await anext(received, None)
            except httpx.TransportError as error:
                raise UpstreamFailed(
                    "the replica stopped in the middle of its answer; try again"
                ) from error
            if chunk is None:
                return
            yield chunk

    @asynccontextmanager
    async def _time_until(self, until: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                yield
        except TimeoutError:
            raise DeadlinePassed(
                "the answer was not finished within the time limit; ask for fewer tokens"
            ) from None


def _is_replica_at_fault(response: httpx.Response) -> bool:
    """Whether an answer speaks of the replica; one that is not in our shapes does too."""
    is_ours = response.headers.get("content-type", "").startswith(
        ("application/json", "text/event")
    )
    return response.status_code in REPLICA_AT_FAULT or not is_ours
