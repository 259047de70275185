"""The one header that SageMaker passes on: whose request it is, and for which route.

`X-Amzn-SageMaker-Custom-Attributes: path=/v1/chat/completions;project=p1;priority=0;request_id=r1`,
each value percent-encoded. Whoever may invoke the endpoint may write it, so nothing in it is taken
that is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from tidegate.protocol.replica import PRIORITY_HEADER, PROJECT_HEADER, REQUEST_HEADER, Priority
from tidegate.protocol.tokenize import ONLINE_REQUESTS
from tidegate_runtime.errors import RequestRefused

HEADER = "X-Amzn-SageMaker-Custom-Attributes"
MAX_CHARS = 1024
"""SageMaker's own limit (InvokeEndpoint, CustomAttributes)."""

_REPLICA_HEADERS = {
    "project": PROJECT_HEADER,
    "priority": PRIORITY_HEADER,
    "request_id": REQUEST_HEADER,
}
_KEYS = ("path", *_REPLICA_HEADERS)
_PRIORITIES = tuple(str(priority.value) for priority in Priority)


@dataclass(frozen=True)
class Attributes:
    """What the header says. `path` is None when the body's shape decides."""

    path: str | None
    headers: tuple[tuple[str, str], ...] = ()
    """The same as a replica's own headers."""


def read_attributes(text: str) -> Attributes:
    """Raises RequestRefused (400) that names the part at fault."""
    if len(text) > MAX_CHARS:
        raise _refused(f"{len(text)} characters", f"send at most {MAX_CHARS}")
    found: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        key, _, value = part.partition("=")
        if key not in _KEYS:
            raise _refused(f"the key {key[:40]!r} is not known", f"use {', '.join(_KEYS)}")
        if key in found:
            raise _refused(f"the key {key!r} is there twice", "say it once")
        found[key] = _value(key, value)
    told = tuple((name, found[key]) for key, name in _REPLICA_HEADERS.items() if key in found)
    return Attributes(found.get("path"), told)


def _value(key: str, quoted: str) -> str:
    value = unquote(quoted)
    if not value or not value.isascii() or not value.isprintable():
        raise _refused(f"{key}: {quoted[:40]!r} is no text", "use printable ASCII characters")
    if key == "path" and value not in ONLINE_REQUESTS:
        raise _refused(f"path: {value[:80]!r} is no route", f"use {', '.join(ONLINE_REQUESTS)}")
    if key == "priority" and value not in _PRIORITIES:
        raise _refused(
            f"priority: {value[:40]!r} is no priority", "use 0 (sync), 1 (async) or 2 (batch)"
        )
    return value


def _refused(what: str, remedy: str) -> RequestRefused:
    return RequestRefused(f"{HEADER}: {what}; {remedy}.", code="invalid_attributes")
