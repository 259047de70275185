"""A recording as a trace that Perfetto and Chrome open.

The form is Chrome's Trace Event Format, in JSON. The engine has a track of its own beside that of
its operators: the two clocks may differ by some microseconds, and spans of one track must nest.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

from tidegate_runtime.profiling.recorder import Recorder, Recording

_TRACK = 0


def gzipped_trace(recorder: Recorder) -> bytes:
    """The trace, compressed."""
    recording = recorder.recording()
    origin_ns = recording.spans[0].start_ns if recording.spans else 0
    events = [
        *_names(recording),
        *_engine_events(recording, origin_ns),
        *recorder.operator_events(origin_ns),
    ]
    document = {"displayTimeUnit": "ms", "traceEvents": events}
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), compresslevel=5)


def _names(recording: Recording) -> Iterator[dict[str, Any]]:
    own = {"ph": "M", "pid": recording.pid}
    yield {**own, "tid": _TRACK, "name": "process_name", "args": {"name": "replica"}}
    yield {**own, "tid": _TRACK, "name": "thread_name", "args": {"name": "engine: phases"}}
    yield {**own, "tid": _TRACK, "name": "thread_sort_index", "args": {"sort_index": -1}}


def _engine_events(recording: Recording, origin_ns: int) -> Iterator[dict[str, Any]]:
    """Each step, and the phases that are within one or between two."""

    def event(name: str, start_ns: int, end_ns: int, **args: int) -> dict[str, Any]:
        return {
            "ph": "X",
            "cat": "engine",
            "name": name,
            "pid": recording.pid,
            "tid": _TRACK,
            "ts": (start_ns - origin_ns) / 1000,
            "dur": (end_ns - start_ns) / 1000,
            "args": args,
        }

    for step in recording.steps:
        first, last = step.spans[0], step.spans[-1]
        yield event("step", first.start_ns, last.end_ns, rows=step.rows, tokens=step.tokens)
    for span in recording.spans:
        yield event(span.phase, span.start_ns, span.end_ns)
