"""Spans, sent by OTLP over HTTP when there is somewhere to send them.

Without an endpoint `NO_TRACES` takes the place of a tracer: nothing is imported, kept or sent.
Moments are seconds on the monotonic clock. A span tells names, times and counts, never a text.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from tidegate.version import VERSION

if TYPE_CHECKING:
    from opentelemetry import trace

Value = str | int | float | bool
Headers = Mapping[str, str]
MISSING = "pip install 'tidegate[otel]'"
FLUSH_S = 2.0
"""How long a process that ends waits for its last spans to be taken."""


class Kind(StrEnum):
    """Which side of a call a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Span(Protocol):
    """A piece of work; it is sent once it has ended."""

    @property
    def headers(self) -> Headers:
        """What makes a callee continue this trace (W3C `traceparent`); empty without traces."""
        ...

    def set(self, **attributes: Value) -> None:
        """Attributes by their names, `__` for a dot: `gen_ai__request__model="smol"`."""
        ...

    def fail(self, kind: str) -> None:
        """It failed: `kind` is a word for machines."""
        ...

    def end(self, at_s: float | None = None) -> None:
        """It ended then, or now."""
        ...


class Tracer(Protocol):
    """Where spans come from."""

    @property
    def is_on(self) -> bool:
        """Whether anybody is told; when not, work for spans alone can be left out."""
        ...

    def begin(
        self,
        name: str,
        parent: Span | Headers | None = None,
        *,
        kind: Kind = Kind.INTERNAL,
        at_s: float | None = None,
    ) -> Span:
        """A span that began then or now, in the trace of `parent` (a span of this process, or the
        headers of a call) or in a new one."""
        ...

    def close(self) -> None:
        """Send what is left, for at most `FLUSH_S`."""
        ...


class _NoSpan:
    headers: Headers = MappingProxyType({})

    def set(self, **attributes: Value) -> None: ...

    def fail(self, kind: str) -> None: ...

    def end(self, at_s: float | None = None) -> None: ...


class _NoTracer:
    is_on = False

    def begin(
        self,
        name: str,
        parent: Span | Headers | None = None,
        *,
        kind: Kind = Kind.INTERNAL,
        at_s: float | None = None,
    ) -> Span:
        del name, parent, kind, at_s
        return NO_SPAN

    def close(self) -> None: ...


NO_SPAN: Span = _NoSpan()
NO_TRACES: Tracer = _NoTracer()


def open_tracer(endpoint: str | None, service: str, **resource: str) -> Tracer:
    """Begin to send to an OTLP/HTTP endpoint (`http://host:4318`), in a thread of its own.

    `service` and `resource` say which process this is. Raises ImportError when the extra `otel` is
    not installed.
    """
    return NO_TRACES if endpoint is None else _OtelTracer(endpoint, service, resource)


def can_trace() -> bool:
    """Whether the extra `otel` is installed."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def import_libraries() -> None:
    """Import what `open_tracer` will need, without starting anything. Raises ImportError."""
    import opentelemetry.exporter.otlp.proto.http.trace_exporter
    import opentelemetry.sdk.trace.export  # noqa: F401


class _OtelTracer:
    is_on = True

    def __init__(self, endpoint: str, service: str, resource: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {f"tidegate.{key}": value for key, value in resource.items()}
        about = {"service.name": service, "service.version": VERSION, **named}
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tidegate", VERSION)

    def begin(
        self,
        name: str,
        parent: Span | Headers | None = None,
        *,
        kind: Kind = Kind.INTERNAL,
        at_s: float | None = None,
    ) -> Span:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        skew_ns = time.time_ns() - time.monotonic_ns()
        if isinstance(parent, _OtelSpan):
            context, skew_ns = trace.set_span_in_context(parent.span, Context()), parent.skew_ns
        elif isinstance(parent, Mapping):
            context = TraceContextTextMapPropagator().extract(parent, Context())
        else:
            context = Context()
        span = self._tracer.start_span(
            name, context, trace.SpanKind[kind.name], start_time=_unix_ns(at_s, skew_ns)
        )
        return _OtelSpan(span, skew_ns)

    def close(self) -> None:
        # Aside, because the library would wait for a dead collector for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(FLUSH_S)


class _OtelSpan:
    def __init__(self, span: trace.Span, skew_ns: int) -> None:
        self.span = span
        self.skew_ns = skew_ns
        """From the monotonic clock to Unix time: one for a whole request, so that its spans fit
        together although clocks are set."""

    @property
    def headers(self) -> Headers:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(self.span))
        return carrier

    def set(self, **attributes: Value) -> None:
        self.span.set_attributes(
            {name.replace("__", "."): value for name, value in attributes.items()}
        )

    def fail(self, kind: str) -> None:
        from opentelemetry import trace

        self.span.set_attribute("error.type", kind)
        self.span.set_status(trace.StatusCode.ERROR)

    def end(self, at_s: float | None = None) -> None:
        self.span.end(_unix_ns(at_s, self.skew_ns))


def _unix_ns(at_s: float | None, skew_ns: int) -> int | None:
    return int(at_s * 1e9) + skew_ns if at_s is not None else time.monotonic_ns() + skew_ns
