"""What is seen of requests on their way: their numbers, and their spans when traces are sent.

chat smol           an operation: from the request's arrival to the end of its answer
├── hold            it found no replica and waited
└── attempt         one replica was asked; its own spans are below this one
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar

from tidegate.telemetry.traces import NO_SPAN, NO_TRACES, Headers, Kind, Span, Tracer
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import Refused
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.web.openapi import EVENT_STREAM
from tidegate_controlplane.web.relay import Head, Producer

PROVIDER = "tidegate"
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
    "/v1/tokenize": "tokenize",
    "/v1/detokenize": "detokenize",
}
"""GenAI's `gen_ai.operation.name` of each endpoint; it has none for the last four."""
OK, AT_FAULT = 200, 400

_CURRENT: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


def onward_headers() -> Headers:
    """What makes a replica continue the trace of the request in hand; nothing without traces."""
    return _CURRENT.get().headers


class Watch:
    """Takes note; whoever does something tells it, in a line."""

    def __init__(self, metrics: Metrics, clock: Clock, tracer: Tracer = NO_TRACES) -> None:
        self.metrics = metrics
        self._clock = clock
        self._tracer = tracer

    def operation(
        self, served: Served, path: str, headers: Mapping[str, str], request_id: str, began_s: float
    ) -> Operation:
        """A request to a model was admitted; it arrived at `began_s` (monotonic seconds)."""
        name = OPERATIONS[path]
        span = self._tracer.begin(f"{name} {served.name}", headers, kind=Kind.SERVER, at_s=began_s)
        span.set(
            gen_ai__operation__name=name,
            gen_ai__provider__name=PROVIDER,
            gen_ai__request__model=served.name,
            tidegate__request_id=request_id,
        )
        return Operation(self.metrics, self._clock, span, (name, PROVIDER, served.name), began_s)

    @contextmanager
    def hold(self, served: Served) -> Iterator[None]:
        """A replica is looked for, and waited for when there is none.

        Whoever let the event loop have a turn in between was held: finding a replica that is there
        takes none.
        """
        began_s = self._clock.monotonic()
        turns: list[None] = []
        turn = asyncio.get_running_loop().call_soon(turns.append, None)
        reason = None
        try:
            yield
        except Refused as refusal:
            reason = refusal.code
            self.refused(served, refusal)
            raise
        finally:
            turn.cancel()
            if turns:
                waited_s = self._clock.monotonic() - began_s
                self.metrics.hold.labels(served.name).observe(waited_s)
                span = self._tracer.begin("hold", _CURRENT.get(), at_s=began_s)
                if reason:
                    span.fail(reason)
                span.end()

    @contextmanager
    def attempt(self, served: Served, replica_id: str) -> Iterator[Attempt]:
        """A replica is asked, and its answer read, until the block is left."""
        parent = _CURRENT.get()
        span = self._tracer.begin("attempt", parent, kind=Kind.CLIENT)
        span.set(gen_ai__request__model=served.name, tidegate__replica=replica_id)
        attempt = Attempt(span)
        _CURRENT.set(span)
        try:
            yield attempt
        except BaseException:
            attempt.failed("broken_off")
            raise
        finally:
            self.metrics.attempts.labels(served.name, attempt.outcome).inc()
            span.end()
            _CURRENT.set(parent)

    def refused(self, served: Served, refusal: Refused) -> Refused:
        """A request gets no replica, for this reason, which is to be raised."""
        self.metrics.refused.labels(served.name, refusal.code).inc()
        return refusal

    def retried(self, served: Served) -> None:
        """A replica failed a request, and another one will be asked."""
        self.metrics.retries.labels(served.name).inc()


class Attempt:
    """One replica that is asked."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.outcome = "answered"

    def failed(self, kind: str) -> None:
        """It gave no usable answer."""
        self.outcome = kind
        self._span.fail(kind)


class Operation:
    """One admitted request, from its arrival to the end of its answer."""

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        span: Span,
        labels: tuple[str, str, str],
        began_s: float,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._span = span
        self._labels = labels
        self._began_s = began_s
        self._is_stream = False
        self._error = ""

    async def seen(self, producer: Producer) -> Producer:
        """The same answer, looked at as it passes."""
        _CURRENT.set(self._span)
        try:
            async with aclosing(producer):
                async for part in producer:
                    if isinstance(part, Head):
                        self._answered(part)
                    elif self._is_stream:
                        self._first_event()
                    yield part
        except (asyncio.CancelledError, GeneratorExit):
            self.failed("client_gone")
            raise
        except Exception as error:
            self.failed(error.code if isinstance(error, Refused) else type(error).__name__)
            raise
        finally:
            self._end()

    def used(self, prompt_tokens: int, completion_tokens: int) -> None:
        """What the replica said it took, or what was counted."""
        for kind, tokens in (("input", prompt_tokens), ("output", completion_tokens)):
            if tokens:
                self._metrics.tokens.labels(*self._labels, kind).observe(tokens)
        self._span.set(
            gen_ai__usage__input_tokens=prompt_tokens,
            gen_ai__usage__output_tokens=completion_tokens,
        )

    def failed(self, kind: str) -> None:
        """The answer says, or would say, that it failed; the first reason counts."""
        self._error = self._error or kind
        self._span.fail(self._error)

    def _answered(self, head: Head) -> None:
        self._is_stream = head.status == OK and head.media_type == EVENT_STREAM
        self._span.set(http__response__status_code=head.status)
        if head.status >= AT_FAULT:
            self.failed(str(head.status))

    def _first_event(self) -> None:
        self._is_stream = False
        if not self._error:
            waited_s = self._clock.monotonic() - self._began_s
            self._metrics.first_token.labels(*self._labels).observe(waited_s)

    def _end(self) -> None:
        duration = self._metrics.duration.labels(*self._labels, self._error)
        duration.observe(self._clock.monotonic() - self._began_s)
        self._span.end()
