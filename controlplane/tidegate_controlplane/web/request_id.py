"""One id per request, in every answer and every log line."""

from __future__ import annotations

import re

from tidegate_controlplane.store.ids import new_id

HEADER = "x-request-id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(offered: str | None) -> str:
    """The caller's own id when it is short and plain, so that it can be logged; else a new one."""
    if offered is not None and _ACCEPTED.fullmatch(offered):
        return offered
    return new_id("req")
