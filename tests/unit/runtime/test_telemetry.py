"""How a replica is told to tell what it does, and the spans of a request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tidegate.protocol.replica import Telemetry
from tidegate.telemetry.traces import Headers, Kind, Span
from tidegate_runtime.engine.timeline import Timeline
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.server.__main__ import alone, parser, validate
from tidegate_runtime.server.tracing import RequestTrace

CONFIG = {
    "replica_id": "r",
    "model_name": "m",
    "source": "/m",
    "status_path": None,
    "cache_dir": "/c",
}


class Kept:
    """A span that remembers."""

    def __init__(self, name: str, parent: Any, at_s: float | None) -> None:
        self.name, self.parent, self.began_s = name, parent, at_s
        self.ended_s: float | None = -1.0
        self.attributes: dict[str, Any] = {}
        self.error = ""
        self.headers: Headers = {}

    def set(self, **attributes: Any) -> None:
        self.attributes |= attributes

    def fail(self, kind: str) -> None:
        self.error = kind

    def end(self, at_s: float | None = None) -> None:
        self.ended_s = at_s


class Keeping:
    """A tracer that sends nothing away."""

    is_on = True

    def __init__(self) -> None:
        self.spans: list[Kept] = []

    def begin(
        self,
        name: str,
        parent: Span | Headers | None = None,
        *,
        kind: Kind = Kind.INTERNAL,
        at_s: float | None = None,
    ) -> Span:
        self.spans.append(Kept(name, parent, at_s))
        return self.spans[-1]

    def close(self) -> None: ...


def trace_of(*timelines: Timeline, status: int = 200) -> dict[str, Kept]:
    tracer = Keeping()
    trace = RequestTrace.begin(tracer, "/v1/completions", {}, "m", 1.0)
    trace.generated(20, timelines)
    trace.end(status)
    return {span.name: span for span in tracer.spans}


def test_the_spans_of_a_request_lie_end_to_end() -> None:
    done = Timeline(1.0, 2.0, 3.0, 5.0, 8.0, 8.0, "stop", 20, 16, 7, steps=6)
    spans = trace_of(done)
    moments = {name: (span.began_s, span.ended_s) for name, span in spans.items()}
    assert moments == {
        "text_completion m": (1.0, None),
        "queue": (2.0, 3.0),
        "prefill": (3.0, 5.0),
        "decode": (5.0, 8.0),
        "engine.steps": (3.0, 8.0),
    }
    assert spans["engine.steps"].attributes["tidegate__cached_tokens"] == 16


def test_a_request_that_was_left_while_it_waited_has_only_waited() -> None:
    assert set(trace_of(Timeline(1.0, 2.0), status=499)) == {"text_completion m", "queue"}


def test_a_request_that_was_left_in_its_prefill_ends_there() -> None:
    spans = trace_of(Timeline(1.0, 2.0, 3.0), status=499)
    assert set(spans) == {"text_completion m", "queue", "prefill", "engine.steps"}
    assert spans["engine.steps"].attributes["tidegate__ending"] == "abort"
    assert spans["text_completion m"].error == "499"


def test_a_prompt_counts_once_and_the_tokens_of_every_choice() -> None:
    ended = [Timeline(1.0, 2.0, 3.0, 5.0, 8.0, 8.0, "stop", 20, 0, tokens) for tokens in (7, 9)]
    attributes = trace_of(*ended)["text_completion m"].attributes
    assert attributes["gen_ai__usage__input_tokens"] == 20
    assert attributes["gen_ai__usage__output_tokens"] == 16


def test_a_replica_alone_is_told_on_its_command_line() -> None:
    arguments = ["--artifact", "/a", "--model-name", "m", "--log-format", "text"]
    asked = parser().parse_args([*arguments, "--otlp-endpoint", "http://127.0.0.1:4318"])
    told = Telemetry(log_format="text", otlp_endpoint="http://127.0.0.1:4318")
    assert alone(asked).telemetry == told


def test_traces_that_cannot_be_sent_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**CONFIG, "telemetry": {"otlp_endpoint": "http://127.0.0.1:4318"}}
    assert validate(Path("config"), config).telemetry.otlp_endpoint == "http://127.0.0.1:4318"
    loaded = [name for name in sys.modules if name.startswith("opentelemetry.")]
    for name in ("opentelemetry", *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelRefused, match=r"telemetry\.otlp_endpoint.*tidegate\[otel\]"):
        validate(Path("config"), config)
