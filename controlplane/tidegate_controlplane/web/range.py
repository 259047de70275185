"""Going on where a connection broke: `Range` of a body, `Last-Event-ID` of a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tidegate_controlplane.errors import BadRequest, RangeNotSatisfiable
from tidegate_controlplane.web.relay import Head

_FROM = re.compile(r"bytes=(\d{1,15})-")


def range_start(header: str | None) -> int:
    """The first byte that is wanted. Other ranges than `bytes=N-` are answered with the whole."""
    found = _FROM.fullmatch(header or "")
    return int(found[1]) if found else 0


def ranged_head(
    media_type: str, total: int, start: int, headers: Mapping[str, str] | None = None
) -> Head:
    """The head of a body of `total` bytes from `start` on. Raises RangeNotSatisfiable."""
    common = {"content-length": str(total - start), "accept-ranges": "bytes", **(headers or {})}
    if start == 0:
        return Head(200, media_type, common)
    if start >= total:
        raise RangeNotSatisfiable(
            f"Range: bytes={start}- begins after the end; there are {total} bytes", param="Range"
        )
    return Head(206, media_type, {"content-range": f"bytes {start}-{total - 1}/{total}", **common})


def last_event_id(header: str | None) -> int | None:
    """The number of the last event that was seen. Raises BadRequest when it is none of ours."""
    if not header:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) <= 15):
        raise BadRequest(
            f"Last-Event-ID: expected the `id` of an event, got {header[:32]!r}",
            param="Last-Event-ID",
        )
    return int(header)
