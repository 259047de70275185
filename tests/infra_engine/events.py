"""What an engine says while it works, in the JSON of Pulumi's event log."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import grpc
from pulumi.runtime.proto import events_pb2, events_pb2_grpc
from tests.infra_engine.stack_double import Kept
from tests.infra_engine.wire import revealed

HALVES = ("create-replacement", "delete-replaced")
"""Steps that are part of another, which alone is counted."""

Tell = Callable[[dict[str, Any]], None]


class Reporter:
    """Numbers the events of one update, counts its steps, and hands each event to `tell`."""

    def __init__(self, tell: Tell, *, planning: bool) -> None:
        self._tell = tell
        self._planning = planning
        self._numbers = itertools.count()
        self._telling = threading.Lock()
        self.changes: Counter[str] = Counter()
        self.errors: list[str] = []

    def say(self, **event: Any) -> None:
        with self._telling:
            self._tell({"sequence": next(self._numbers), "timestamp": 0, **event})

    def begins(self, op: str, resource: Kept) -> None:
        if not _is_default_provider(resource):
            self.say(resourcePreEvent=self._step(op, resource))

    def done(self, op: str, resource: Kept) -> None:
        if _is_default_provider(resource):
            return
        if op not in HALVES:
            self.changes[op] += 1
        self.say(resOutputsEvent=self._step(op, resource))

    def failed(self, op: str, resource: Kept, message: str) -> None:
        self.error(message, resource.urn)
        self.say(resOpFailedEvent=self._step(op, resource) | {"status": 0, "steps": 0})

    def error(self, message: str, urn: str = "") -> None:
        self.errors.append(f"{urn}: {message}" if urn else message)
        self.diagnostic("error", message, urn)

    def diagnostic(self, severity: str, message: str, urn: str = "") -> None:
        said = {"prefix": f"{severity}: ", "message": message, "color": "never"}
        self.say(diagnosticEvent=said | {"severity": severity, "urn": urn})

    def summary(self) -> None:
        said = {"maybeCorrupt": False, "durationSeconds": 0, "PolicyPacks": {}}
        self.say(summaryEvent=said | {"resourceChanges": dict(self.changes)})

    def _step(self, op: str, resource: Kept) -> dict[str, Any]:
        state = {
            "type": resource.type,
            "urn": resource.urn,
            "id": resource.id,
            "parent": resource.parent,
            "provider": resource.provider,
            "custom": resource.custom,
            "inputs": revealed(resource.inputs, "[secret]"),
            "outputs": revealed(resource.outputs, "[secret]"),
        }
        of = {key: state[key] for key in ("urn", "type", "provider")}
        return {"metadata": {"op": op, "new": state} | of, "planning": self._planning}


def _is_default_provider(resource: Kept) -> bool:
    """Made of the stack's configuration, and not spoken of."""
    return resource.type.startswith("pulumi:providers:") and resource.urn.endswith("::default")


@contextmanager
def streamed(address: str | None) -> Iterator[Tell]:
    """What hands events to the server at `tcp://host:port`, in order; nowhere for None."""
    if address is None:
        yield lambda event: None
        return
    waiting: Queue[Any] = Queue()
    with grpc.insecure_channel(address.removeprefix("tcp://")) as channel:
        stub = events_pb2_grpc.EventsStub(channel)
        answer = stub.StreamEvents.future(iter(waiting.get, None))
        try:
            yield lambda event: waiting.put(events_pb2.EventRequest(event=json.dumps(event)))
        finally:
            waiting.put(None)
            answer.result(timeout=30)
