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
from tidegate_controlplane.gateway.forward import OK, Forwarder, Upstream
from tidegate_controlplane.gateway.sse import UsageFilter, error_event, usage_of
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Operation, Watch
from tidegate_controlplane.settings import LimitSettings
from tidegate_controlplane.web.errors import error_body, fault_of
from tidegate_controlplane.web.openapi import EVENT_STREAM, JSON
from tidegate_controlplane.web.relay import Head, Producer

LOG = logging.getLogger("tidegate.gateway")
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


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

    def answer(self, admitted: Admitted, caller: Caller) -> Producer:
        """The answer to `admitted`, as it comes."""
        return caller.operation.seen(self._answer(admitted, caller))

    def _answer(self, admitted: Admitted, caller: Caller) -> Producer:
        if not admitted.is_stream:
            return self._whole(admitted, caller)
        if self.endpoints.ready(admitted.served.deployment_id):
            return self._streamed(admitted, caller)
        return self._held(admitted, caller)

    async def _whole(self, admitted: Admitted, caller: Caller) -> Producer:
        """One JSON answer, or an error; never a part."""
        answer = await self.forwarder.call(
            admitted.served,
            admitted.path,
            admitted.body,
            deadline=self._hold_until(caller),
            request_id=caller.request_id,
            run_s=self.limits.invocation_run_s,
        )
        if answer.status == OK:
            self._account(admitted, caller, *usage_of(answer.body))
        yield Head(answer.status, JSON)
        yield answer.body

    async def _streamed(self, admitted: Admitted, caller: Caller) -> Producer:
        """A stream whose status is the replica's own."""
        async with self._upstream(admitted, caller) as upstream:
            if upstream.status != OK:
                yield Head(upstream.status, JSON)
                async for chunk in upstream.chunks:
                    yield chunk
                return
            yield Head(OK, EVENT_STREAM, STREAM_HEADERS)
            async with aclosing(self._events(upstream, admitted, caller)) as events:
                async for event in events:
                    yield event

    async def _held(self, admitted: Admitted, caller: Caller) -> Producer:
        """A stream that begins before there is a replica: what fails later is an error event."""
        if refusal := self.endpoints.refusal(admitted.served.deployment_id):
            raise self.watch.refused(admitted.served, refusal)
        yield Head(OK, EVENT_STREAM, STREAM_HEADERS, heartbeat_s=self.limits.heartbeat_s)
        try:
            async with self._upstream(admitted, caller) as upstream:
                if upstream.status == OK:
                    async with aclosing(self._events(upstream, admitted, caller)) as events:
                        async for event in events:
                            yield event
                else:
                    caller.operation.failed(str(upstream.status))
                    body = b"".join([chunk async for chunk in upstream.chunks])
                    yield error_event(body.replace(b"\n", b" "))
        except Exception as error:  # noqa: BLE001 - the status is sent; this is the only way to tell
            yield self._error_event(error, admitted, caller)

    async def _events(
        self, upstream: Upstream, admitted: Admitted, caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        """The replica's events, whole; the last one is `[DONE]` or says what went wrong."""
        events = UsageFilter(keep_usage=admitted.wants_usage)
        try:
            async for chunk in upstream.chunks:
                for event in events.feed(chunk):
                    yield event
            if not events.is_finished:
                raise UpstreamFailed("the replica ended its answer too early; try again")
        except Exception as error:  # noqa: BLE001 - the status is sent; this is the only way to tell
            yield self._error_event(error, admitted, caller)
        finally:
            self._account(admitted, caller, *events.tokens(admitted.prompt_estimate))

    def _upstream(
        self, admitted: Admitted, caller: Caller
    ) -> AbstractAsyncContextManager[Upstream]:
        return self.forwarder.stream(
            admitted.served,
            admitted.path,
            admitted.body,
            deadline=self._hold_until(caller),
            request_id=caller.request_id,
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
