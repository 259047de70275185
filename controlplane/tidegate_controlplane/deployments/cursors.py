"""Where a reader of a list, of events or of a log goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tidegate.protocol.resources import Page
from tidegate_controlplane.errors import BadRequest

T = TypeVar("T")
MAX_DIGITS = 18
"""What fits into a column of 64 bits."""


def page(views: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Page[T]:
    """Of `limit + 1` views read, the first `limit`, and whether there are more."""
    data = list(views[:limit])
    more = len(views) > limit
    return Page(data=data, has_more=more, next=cursor(data[-1]) if more else None)


def event_cursor(text: str | None) -> int:
    """The sequence number after which to read. Raises BadRequest."""
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise BadRequest(f"after: {text!r} is not a cursor of this list", param="after")
    return int(text)


def read_log_cursor(text: str | None) -> dict[str, int]:
    """Byte offsets by replica id. Raises BadRequest."""
    if not text:
        return {}
    fault = BadRequest(f"cursor: {text[:80]!r} is not a cursor of this log", param="cursor")
    try:
        content = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (ValueError, RecursionError):
        raise fault from None
    if not isinstance(content, dict):
        raise fault
    if not all(isinstance(v, int) and 0 <= v < 10**MAX_DIGITS for v in content.values()):
        raise fault
    return content


def write_log_cursor(offsets: Mapping[str, int]) -> str:
    """The cursor that `read_log_cursor` reads."""
    return base64.urlsafe_b64encode(json.dumps(dict(offsets)).encode()).decode()
