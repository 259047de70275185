"""What becomes of an admitted request: forwarded, streamed, held with heartbeats, accounted."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import UpstreamFailed
from tidegate_controlplane.gateway.admission import Admitted
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.forward import Forwarder, Upstream
from tidegate_controlplane.gateway.hop import OK
from tidegate_controlplane.gateway.sse import UsageFilter, error_event
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Operation, Watch
from tidegate_controlplane.settings import LimitSettings
from tidegate_controlplane.web.errors import error_body, fault_of
from tidegate_controlplane.web.openapi import EVENT_STREAM, JSON
from tidegate_controlplane.web.relay import STREAM_HEADERS, Head, Patience, Producer, Relay

LOG = logging.getLogger("tidegate.gateway")


@dataclass(frozen=True)
class Caller:
    """Who asks, under which request id, how long they will be held, and what is seen of it."""

    principal: Principal
    request_id: str
    hold_s: float
    operation: Operation


@dataclass(frozen=True)
class Gateway:
    """The data plane's parts, put together."""

    catalog: Catalog
    endpoints: Endpoints
    forwarder: Forwarder
    quotas: Quotas
    usage: UsageBook
    watch: Watch
    limits: LimitSettings
    clock: Clock

    def answer(self, admitted: Admitted, caller: Caller) -> Relay:
        """The answer to `admitted`, as it comes."""
        stall_s = self.limits.reader_stall_s
        if not admitted.is_stream:
            return Relay(caller.operation.seen(self._whole(admitted, caller)), stall_s=stall_s)
        patience = Patience(Head(OK, EVENT_STREAM, STREAM_HEADERS), self.limits.heartbeat_s)
        producer = caller.operation.seen(self._streamed(admitted, caller, patience))
        return Relay(producer, stall_s=stall_s, patience=patience)

    async def _whole(self, admitted: Admitted, caller: Caller) -> Producer:
        """One JSON answer, or an error; never a part."""
        answer = await self.forwarder.call(
            admitted.served,
            admitted.path,
            admitted.body,
            deadline=self._hold_until(caller),
            request_id=caller.request_id,
            run_s=self.limits.invocation_run_s,
            ask=admitted.ask,
        )
        if answer.status == OK:
            self._account(admitted, caller, *answer.used)
        yield Head(answer.status, JSON, {"content-length": str(len(answer.body))})
        yield answer.body

    async def _streamed(self, admitted: Admitted, caller: Caller, patience: Patience) -> Producer:
        """A stream whose status is the replica's own, or that of `patience` when it came first."""
        try:
            async with self._upstream(admitted, caller) as upstream:
                if upstream.status == OK:
                    yield patience.head
                    async with aclosing(self._events(upstream, admitted, caller)) as events:
                        async for event in events:
                            yield event
                    return
                body = b"".join([chunk async for chunk in upstream.chunks])
                yield Head(upstream.status, JSON)
                yield error_event(body.replace(b"\n", b" ")) if patience.is_spent else body
        except Exception as error:
            if not patience.is_spent:
                raise
            yield patience.head
            yield self._error_event(error, admitted, caller)

    async def _events(
        self, upstream: Upstream, admitted: Admitted, caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        """The replica's events, whole; the last one is `[DONE]` or says what went wrong."""
        events = UsageFilter(keep_usage=admitted.wants_usage)
        try:
            async for chunk in upstream.chunks:
                if kept := b"".join(events.feed(chunk)):
                    yield kept
            if not events.is_finished:
                raise UpstreamFailed("the replica ended its answer too early; try again")
        except Exception as error:  # noqa: BLE001 - the status is sent; this is the only way to tell
            yield self._error_event(error, admitted, caller)
        finally:
            used = events.tokens(admitted.ask.prompt_tokens)
            upstream.slot.used(*used)
            self._account(admitted, caller, *used)

    def _upstream(
        self, admitted: Admitted, caller: Caller
    ) -> AbstractAsyncContextManager[Upstream]:
        return self.forwarder.stream(
            admitted.served,
            admitted.path,
            admitted.body,
            deadline=self._hold_until(caller),
            request_id=caller.request_id,
            ask=admitted.ask,
            run_s=self.limits.invocation_run_s,
        )

    def _error_event(self, error: Exception, admitted: Admitted, caller: Caller) -> bytes:
        fault = fault_of(error, method="POST", path=admitted.path)
        caller.operation.failed(fault.code)
        if fault.code == "internal_error":
            LOG.error("stream failed [%s]", caller.request_id, exc_info=error)
        return error_event(error_body(fault))

    def _account(self, admitted: Admitted, caller: Caller, prompt: int, completion: int) -> None:
        caller.operation.used(prompt, completion)
        principal = caller.principal
        self.usage.record(
            principal.project_id, admitted.served, principal.key_id, prompt, completion
        )
        self.quotas.charge_tokens(principal, prompt + completion)

    def _hold_until(self, caller: Caller) -> float:
        return self.clock.monotonic() + caller.hold_s
