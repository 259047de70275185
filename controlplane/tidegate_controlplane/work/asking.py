"""Getting one leased request its answer: its body is fetched, and a replica is asked.

A request over a long array is asked in pieces and its answer written as the pieces are answered, so
that neither is ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Protocol

from pydantic_core import to_json

from tidegate.protocol.replica import Priority
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.batch_progress import replica_share_s
from tidegate_controlplane.errors import DeadlinePassed, Refused
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.hop import OK, Listener
from tidegate_controlplane.objects.base import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectTooLarge,
    StoreFull,
    StoreUnavailable,
)
from tidegate_controlplane.work.fetching import AT_FAULT, Fetching
from tidegate_controlplane.work.items import groups
from tidegate_controlplane.work.joined_answer import JoinedAnswer, UnfitAnswer, joined
from tidegate_controlplane.work.object_keys import result_key
from tidegate_controlplane.work.outcome import (
    REQUEST_LOST,
    RESULT_TOO_LARGE,
    UNREADABLE,
    Answered,
    Fault,
    Interrupted,
    Outage,
    Reply,
    Written,
    of_refusal,
    storage_failure,
)
from tidegate_controlplane.work.payloads import Payloads, request_of
from tidegate_controlplane.work.run import Run

OUTAGES = (StoreUnavailable, StoreFull)
"""What passes, and is not the request's fault."""


class Forwards(Protocol):
    """Gives a request to a replica; `gateway.forward.Forwarder` does."""

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
    ) -> Answered: ...

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
    ) -> Answered: ...


class Asking:
    """Asks for whatever was leased."""

    def __init__(
        self,
        payloads: Payloads,
        endpoints: Endpoints,
        forwarder: Forwards,
        clock: Clock,
        fetching: Fetching,
        max_result_bytes: int,
    ) -> None:
        self._payloads = payloads
        self._endpoints = endpoints
        self._forwarder = forwarder
        self._clock = clock
        self._fetching = fetching
        self._max_result_bytes = max_result_bytes

    async def answer(self, run: Run) -> Reply:
        """The answer, or why there is none; within the run limit and the deadline."""
        limit_s, late = self._limit(run)
        try:
            async with asyncio.timeout(limit_s):
                return await self._answer(run)
        except TimeoutError:
            return late
        except (_NoReplica, DeadlinePassed):
            return Interrupted.NO_REPLICA
        except _PieceRefused as refused:
            return refused.answer
        except UnfitAnswer:
            return UNREADABLE
        except ObjectNotFound:
            return REQUEST_LOST
        except ObjectTooLarge:
            return Fault(RESULT_TOO_LARGE)
        except ObjectStoreError as error:
            failure = storage_failure("what this request needs could not be used", error)
            return Outage(failure) if isinstance(error, OUTAGES) else failure
        except Refused as refused:
            return refused

    def _limit(self, run: Run) -> tuple[float, Interrupted]:
        row = run.row
        if row.deadline_at is not None:
            left_s = (row.deadline_at - self._clock.now()) / timedelta(seconds=1)
            if left_s < row.timeout_s:
                return max(0.0, left_s), Interrupted.DEADLINE
        return row.timeout_s, Interrupted.TIMEOUT

    async def _answer(self, run: Run) -> Reply:
        if run.row.input_uri is not None and run.row.request_key is None:
            try:
                if not await self._fetching.fetch(run):
                    return Interrupted.LOST
            except AT_FAULT as refused:
                return Fault(of_refusal(refused))
        if run.row.outline is not None:
            return await self._in_pieces(run, run.row.outline)
        body = await self._payloads.read(request_of(run.row))
        return await self._ask(run, body, self._clock.monotonic())

    async def _ask(self, run: Run, body: bytes, deadline: float) -> Answered:
        """What a replica answers; `deadline` bounds the wait for one that has room."""
        priority = _priority(run)
        if not run.asked and not self._endpoints.has_room(run.served.deployment_id, priority):
            raise _NoReplica
        # failpoint run.before_asking
        run.asked = True  # nothing is awaited until the replica that has room has it
        began, before = self._clock.monotonic(), self._in_flight(run)
        answer = await self._sent(run, body, deadline, priority)
        run.replica_s += replica_share_s(
            self._clock.monotonic() - began,
            len(self._endpoints.ready(run.served.deployment_id)),
            1 + max(before, self._in_flight(run)),
        )
        return answer

    async def _sent(self, run: Run, body: bytes, deadline: float, priority: Priority) -> Answered:
        row, request_id = run.row, f"{run.row.id}-{run.row.lease_epoch}"
        # Of an adapter that is gone since, the replica says so.
        served = run.served.model(row.model) or run.served
        run_s = 2 * row.timeout_s  # the limit that counts is around all of this
        if run.partial is None:
            return await self._forwarder.call(
                served,
                row.endpoint,
                body,
                deadline=deadline,
                request_id=request_id,
                run_s=run_s,
                priority=priority,
            )
        return await self._forwarder.follow(
            run.partial,
            served,
            row.endpoint,
            body,
            deadline=deadline,
            request_id=request_id,
            run_s=run_s,
            priority=priority,
        )

    def _in_flight(self, run: Run) -> int:
        return self._endpoints.demand(run.served.deployment_id).in_flight

    # --- in pieces ---

    async def _in_pieces(self, run: Run, outline: dict[str, Any]) -> Written:
        """One answer from many, one after the other; a piece that is refused ends them all."""
        row = run.row
        fields, array = outline["fields"], outline["array"]
        if run.partial is not None:
            run.partial.items = outline["items"]
        whole = JoinedAnswer(row.endpoint, fields.get("n") or 1)

        async def ask(items: list[Any]) -> bytes:
            body = to_json({**fields, array: items})
            # The first waits for no slot, as every lease; later ones have begun and may wait.
            wait_s = row.timeout_s if run.asked else 0.0
            answer = await self._ask(run, body, self._clock.monotonic() + wait_s)
            if answer.status != OK:
                raise _PieceRefused(answer)
            return answer.body

        async def written() -> AsyncGenerator[bytes]:
            async with aclosing(self._payloads.stream(request_of(row))) as pieces:
                async for part in joined(whole, groups(pieces, array), ask):
                    if run.partial is not None:
                        run.partial.answered(whole.items, whole.usage.get("completion_tokens", 0))
                    yield part

        key = result_key(row.project_id, row.id, row.lease_epoch)
        async with aclosing(written()) as parts:
            stored = await self._payloads.keep_stream(key, parts, self._max_result_bytes)
        usage = whole.usage
        return Written(
            key, stored.bytes, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        )


def _priority(run: Run) -> Priority:
    return Priority.ASYNC if run.row.batch_id is None else Priority.BATCH


class _NoReplica(Exception):
    """The replica that had room when the request was claimed is gone, or full."""


class _PieceRefused(Exception):
    """A replica answered a piece of a request with an error."""

    def __init__(self, answer: Answered) -> None:
        super().__init__(answer.status)
        self.answer = answer
