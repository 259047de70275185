"""Who a request is from, as the gateway says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.protocol.replica import PRIORITY_HEADER, PROJECT_HEADER, Priority
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.tracing import UNTRACED, RequestTrace

_PRIORITIES = {str(priority.value): priority for priority in Priority}


@dataclass(frozen=True)
class Caller:
    """`arrived_s` is on the monotonic clock; `project` shares the engine with others; `trace` takes
    what becomes of the request.
    """

    arrived_s: float
    project: str = ""
    priority: Priority = Priority.SYNC
    trace: RequestTrace = field(default=UNTRACED, compare=False)

    @classmethod
    def of(
        cls, headers: Mapping[str, str], arrived_s: float, trace: RequestTrace = UNTRACED
    ) -> Caller:
        """Read the gateway's headers; without them it is nobody's, and sync. Raises
        RequestRefused."""
        priority = headers.get(PRIORITY_HEADER, "0")
        if priority not in _PRIORITIES:
            raise RequestRefused(
                f"{PRIORITY_HEADER}: {priority[:40]!r} is no priority; use 0 (sync), 1 (async) or "
                "2 (batch).",
                code="invalid_priority",
            )
        return cls(arrived_s, headers.get(PROJECT_HEADER, ""), _PRIORITIES[priority], trace)
