"""One request, one replica, and one more when the first fails before it said anything.

A slot on a replica is acquired (held for through a cold start), the replica asked with its own
token, and its answer passed on. Until the first byte of the answer the request can be given to
another replica, because nothing has been said to the client; a generation has no effect but its
answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from tidegate.protocol.replica import Priority
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.routing import BYTES_PER_TOKEN
from tidegate_controlplane.errors import DeadlinePassed, UpstreamFailed
from tidegate_controlplane.gateway import hop
from tidegate_controlplane.gateway.adapters import bring
from tidegate_controlplane.gateway.assembly import STREAMED, Assembly, asking_stream
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.hop import (
    OK,
    Listener,
    Question,
    ReplicaFailed,
    ReplicaFull,
    ReplicaGone,
)
from tidegate_controlplane.gateway.probe import Prober
from tidegate_controlplane.gateway.replica import Ask, Slot
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.sse import ChunkReader, usage_of
from tidegate_controlplane.gateway.trials import Exchange, Trials
from tidegate_controlplane.gateway.watch import Watch

ATTEMPTS = 2
REPLACE_S = 0.5
"""How long the reconciler is given to withdraw an only replica that failed: its successor is then
waited for, instead of asking the dead one again."""
FULL_S = 1.0
"""Until such a replica is asked again, unless one of its requests ends before."""


@dataclass(frozen=True)
class Answer:
    """A whole answer of a replica."""

    status: int
    body: bytes
    used: tuple[int, int] = (0, 0)
    """Tokens of the prompt and of the output, where it says so."""


@dataclass(frozen=True)
class Upstream:
    """An answer of a replica that has begun."""

    status: int
    is_stream: bool
    """Whether it comes as events."""
    chunks: AsyncIterator[bytes]
    """Raises UpstreamFailed or DeadlinePassed when the answer ends before its end."""
    slot: Slot
    """To be told what the request really used."""


class Forwarder:
    """Gives requests to replicas."""

    def __init__(
        self,
        endpoints: Endpoints,
        client: ReplicaClient,
        clock: Clock,
        trials: Trials,
        watch: Watch,
    ) -> None:
        self._endpoints = endpoints
        self._client = client
        self._clock = clock
        self._trials = trials
        self._watch = watch
        self._prober = Prober(endpoints, client)

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
        ask: Ask | None = None,
    ) -> Answer:
        """The replica's whole answer; a refusal of the request (4xx) is one.

        `deadline` (monotonic seconds) bounds the wait for a slot, and everything when `run_s` is
        None; otherwise the replica has `run_s` seconds from when it was found. `ask` is what is
        known of the request; without it that is guessed from its length.

        Raises UpstreamFailed when two attempts failed, Unavailable when there is no replica to wait
        for, DeadlinePassed.
        """
        known = ask or Ask(served.project_id, priority, len(body) // BYTES_PER_TOKEN)
        async with AsyncExitStack() as stack:
            question = Question(path, body, request_id, known, whole=True)
            upstream = await self._open(stack, served, question, deadline, run_s)
            body = b"".join([chunk async for chunk in upstream.chunks])
            if upstream.status != OK:
                return Answer(upstream.status, body)
            used = usage_of(body)
            if any(used):  # an answer of tokens says nothing of how long the model's answers are
                upstream.slot.used(*used)
            return Answer(OK, body, used)

    async def follow(
        self,
        listener: Listener,
        served: Served,
        path: str,
        body: bytes,
        *,
        deadline: float,
        request_id: str,
        run_s: float,
        priority: Priority,
    ) -> Answer:
        """The whole answer as `call` gives it, while `listener` hears how it comes about.

        Who wants the text is asked for it as a stream, where the endpoint has one. A replica that
        answers whole all the same is believed. Nothing is tried a second time after the first byte
        of a stream: one that breaks off is UpstreamFailed.
        """
        ask = Ask(served.project_id, priority, len(body) // BYTES_PER_TOKEN)
        streams = listener.wants_text and path in STREAMED
        if streams:
            body = await asyncio.to_thread(asking_stream, body)
        async with AsyncExitStack() as stack:
            question = Question(path, body, request_id, ask, not streams, listener)
            upstream = await self._open(stack, served, question, deadline, run_s)
            if streams and upstream.status == OK and upstream.is_stream:
                answer = await _assembled(path, upstream, listener)
            else:
                body = b"".join([chunk async for chunk in upstream.chunks])
                answer = Answer(upstream.status, body, usage_of(body))
            upstream.slot.used(*answer.used)
            return answer

    @asynccontextmanager
    async def stream(
        self,
        served: Served,
        path: str,
        body: bytes,
        *,
        deadline: float,
        request_id: str,
        ask: Ask,
        run_s: float | None = None,
    ) -> AsyncIterator[Upstream]:
        """The replica's answer from its first byte on; as `call` until then.

        Leaving the context closes the connection to the replica, which stops its work.
        """
        async with AsyncExitStack() as stack:
            question = Question(path, body, request_id, ask, whole=False)
            yield await self._open(stack, served, question, deadline, run_s)

    async def _open(
        self,
        stack: AsyncExitStack,
        served: Served,
        question: Question,
        deadline: float,
        run_s: float | None,
    ) -> Upstream:
        """Enter into `stack` a replica that answers."""
        deployment_id, ask = served.deployment_id, question.ask
        failures: list[str] = []
        while True:
            async with AsyncExitStack() as attempt:
                with self._watch.hold(served):
                    slot = await attempt.enter_async_context(
                        self._endpoints.acquire(deployment_id, deadline, ask)
                    )
                seen = attempt.enter_context(self._watch.attempt(served, slot.replica_id))
                until = deadline if run_s is None else self._clock.monotonic() + run_s
                if question.listener is not None:
                    question.listener.asked(slot.replica_id)
                exchange = self._trials.exchange(served, slot.endpoint, question)
                try:
                    upstream = await self._ask(attempt, served, slot, question, until, exchange)
                except DeadlinePassed:
                    exchange.failed()
                    raise
                except ReplicaFull:
                    seen.failed("replica_full")
                    self._endpoints.full(deployment_id, slot, FULL_S)
                    ask = replace(ask, returning=True)
                except ReplicaFailed as failure:
                    seen.failed("replica_failed")
                    exchange.failed()
                    failures.append(f"{slot.replica_id}: {failure}")
                    dead = isinstance(failure, ReplicaGone)
                    self._endpoints.failed(deployment_id, slot, dead=dead)
                    ask = replace(ask, returning=True, exclude=ask.exclude | {slot.replica_id})
                else:
                    await stack.enter_async_context(attempt.pop_all())
                    return upstream
            if failures:
                self._check_retry(served, failures)
                await self._let_be_replaced(served, ask.exclude, deadline)

    def _check_retry(self, served: Served, failures: list[str]) -> None:
        if len(failures) < ATTEMPTS and self._endpoints.may_retry(served.deployment_id):
            self._watch.retried(served)
            return
        raise UpstreamFailed(
            f"no replica of {served.name!r} answered ({'; '.join(failures)}); try again",
            retry_after_s=1.0,
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
        self,
        attempt: AsyncExitStack,
        served: Served,
        slot: Slot,
        question: Question,
        until: float,
        exchange: Exchange,
    ) -> Upstream:
        """The answer, once its first byte is here.

        Raises ReplicaFailed, ReplicaFull, DeadlinePassed.
        """
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())) as limit:
                slot.first_byte = limit
                self._prober.watch(served.deployment_id, slot)
                told = slot.replica.adapters
                response = await bring(
                    self._client, slot.endpoint, told, served.adapter, question.request_id
                ) or await self._client.send(slot.endpoint, question)
                attempt.callback(response.close)
                first = await hop.beginning(response, whole=question.whole)
        except TimeoutError:
            if slot.is_displaced:
                raise ReplicaFailed("it stopped answering") from None
            raise _too_long() from None
        finally:
            slot.first_byte = None
        slot.begun()
        exchange.began(response.status, first)
        # Said before the slot is given back: nobody who is held shall follow a replica that died.
        broken = partial(self._endpoints.failed, served.deployment_id, slot, dead=False)
        rest = hop.pieces(first, response, lambda: self._time_until(until), broken)
        is_stream = response.content_type == hop.EVENT_STREAM
        return Upstream(response.status, is_stream, exchange.watch(rest), slot)

    @asynccontextmanager
    async def _time_until(self, until: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                yield
        except TimeoutError:
            raise _too_long() from None


async def _assembled(path: str, upstream: Upstream, listener: Listener) -> Answer:
    """What a stream amounts to. Raises UpstreamFailed when it ends before its end."""
    assembly, reader = Assembly(path), ChunkReader()
    async for piece in upstream.chunks:
        for chunk in reader.feed(piece):
            if "error" in chunk:
                return Answer(_status_of(chunk["error"]), to_json(chunk))
            assembly.take(chunk)
            listener.heard(chunk)
    if not reader.is_done:
        raise UpstreamFailed("the replica ended its answer too early")
    try:
        body = assembly.answer()
    except ValidationError as error:
        raise UpstreamFailed(f"the replica's answer is no answer of {path}") from error
    return Answer(OK, body, usage_of(body))


def _status_of(error: Any) -> int:
    """What an error event would have been as the whole answer: what a caller did is not retried."""
    kind = error.get("type") if isinstance(error, dict) else None
    return 400 if kind == "invalid_request_error" else 500


def _too_long() -> DeadlinePassed:
    return DeadlinePassed("the answer was not finished within the time limit; ask for fewer tokens")
