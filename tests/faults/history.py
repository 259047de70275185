"""What clients saw of a run, in the order in which they saw it: one event a line.

An event says only what a client can know. `lost` is a request whose answer never came: it may have
been accepted, or not.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """`what` happened: submitted, accepted, refused, lost, state, result, listed, batch, line.

    Which of the other fields are used follows from it.
    """

    what: str
    key: str = ""
    """Of a submission: its idempotency key, or a name that the client gives it."""
    prompt: str = ""
    id: str = ""
    status: str = ""
    text: str = ""
    custom_id: str = ""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Of a batch: the text that each custom_id must get."""
    keyed: bool = True
    """Whether `key` was sent, so that a second submission with it makes nothing new."""
    at: float = 0.0
    """When it was seen, in seconds of the monotonic clock."""


class History:
    """Events, kept in a file as they come; several threads may add to it."""

    def __init__(self, path: Path, before: Iterable[Event] = ()) -> None:
        """`before` is what was seen already."""
        self._path = path
        self._lock = threading.Lock()
        path.write_text("".join(json.dumps(asdict(event)) + "\n" for event in before))

    def add(self, what: str, **fields: Any) -> None:
        line = json.dumps(asdict(Event(what, at=time.monotonic(), **fields)))
        with self._lock, self._path.open("a") as file:
            file.write(line + "\n")

    def __iter__(self) -> Iterator[Event]:
        for line in self._path.read_text().splitlines():
            yield Event(**json.loads(line))

    def seen(self, what: str) -> list[Event]:
        return [event for event in self if event.what == what]


def until(history: Iterable[Event], moment: float, text_of: Callable[[str], str]) -> list[Event]:
    """What clients had seen at `moment`, when all their connections broke.

    A submission that had no answer yet is a lost one; `text_of` gives what its prompt would get.
    Files that were read are left out: they are read again.
    """
    seen = [event for event in history if event.at < moment]
    asked = [event for event in seen if event.what == "submitted"]
    answered = Counter(event.key for event in seen if event.what in ("accepted", "refused", "lost"))
    for event in asked:
        answered[event.key] -= 1
        if answered[event.key] < 0:
            lost = Event("lost", event.key, text=text_of(event.prompt), keyed=event.keyed)
            seen.append(lost)
    return [event for event in seen if event.what != "line"]
