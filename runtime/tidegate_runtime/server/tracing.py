"""The spans of one request in a replica.

    request                 from its arrival to the last byte of its answer
    ├── queue               each choice: until its first step
    ├── prefill             until its first token
    ├── decode              until its last
    └── engine.steps        from its first step to its end, with what the engine did for it

They are made from the engine's timelines once the request has ended, so tracing takes no time of a
step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tidegate.telemetry.traces import NO_SPAN, NO_TRACES, Kind, Span, Tracer

if TYPE_CHECKING:  # the engine imports torch, and requests are answered before that
    from tidegate_runtime.engine.timeline import Timeline

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


class RequestTrace:
    """The span of one request, and those below it."""

    def __init__(self, tracer: Tracer, span: Span = NO_SPAN) -> None:
        self._tracer = tracer
        self._span = span

    @classmethod
    def begin(
        cls, tracer: Tracer, path: str, headers: Mapping[str, str], model: str, arrived_s: float
    ) -> RequestTrace:
        """A request for `path` arrived, with a `traceparent` in `headers` if it is traced."""
        if not tracer.is_on:
            return cls(tracer)
        operation = OPERATIONS[path]
        span = tracer.begin(f"{operation} {model}", headers, kind=Kind.SERVER, at_s=arrived_s)
        span.set(
            gen_ai__operation__name=operation,
            gen_ai__provider__name="tidegate",
            gen_ai__request__model=model,
        )
        return cls(tracer, span)

    def generated(self, prompt_tokens: int, timelines: Iterable[Timeline]) -> None:
        """The engine is done with every choice of it; each prompt counts once."""
        if not self._tracer.is_on:
            return
        seen = list(timelines)
        self._span.set(
            gen_ai__usage__input_tokens=prompt_tokens,
            gen_ai__usage__output_tokens=sum(one.generated_tokens for one in seen),
        )
        for choice, timeline in enumerate(seen):
            self._phases(timeline, choice)

    def embedded(self, prompt_tokens: int) -> None:
        """Its vectors are made."""
        self._span.set(gen_ai__usage__input_tokens=prompt_tokens)

    def end(self, status: int) -> None:
        """The last byte was sent; `status` is that of the answer."""
        self._span.set(http__response__status_code=status)
        if status >= 400:
            self._span.fail(str(status))
        self._span.end()

    def _phases(self, timeline: Timeline, choice: int) -> None:
        ended = timeline.ended_s
        moments = (
            ("queue", timeline.queued_s, timeline.started_s or ended),
            ("prefill", timeline.started_s, timeline.first_token_s or ended),
            ("decode", timeline.first_token_s, timeline.last_token_s),
        )
        for name, began_s, ended_s in moments:
            if began_s is not None:
                self._child(name, began_s, ended_s, choice)
        if timeline.started_s is not None:
            span = self._tracer.begin("engine.steps", self._span, at_s=timeline.started_s)
            span.set(
                tidegate__choice=choice,
                tidegate__steps=timeline.steps,
                tidegate__preemptions=timeline.preemptions,
                tidegate__cached_tokens=timeline.cached_tokens,
                tidegate__drafted_tokens=timeline.drafted_tokens,
                tidegate__accepted_tokens=timeline.accepted_tokens,
                tidegate__ending=timeline.ending or "abort",
                gen_ai__usage__input_tokens=timeline.prompt_tokens,
                gen_ai__usage__output_tokens=timeline.generated_tokens,
            )
            span.end(ended)

    def _child(self, name: str, began_s: float, ended_s: float | None, choice: int) -> None:
        span = self._tracer.begin(name, self._span, at_s=began_s)
        span.set(tidegate__choice=choice)
        span.end(ended_s)


UNTRACED = RequestTrace(NO_TRACES)
"""The trace of a request that nobody traces."""
