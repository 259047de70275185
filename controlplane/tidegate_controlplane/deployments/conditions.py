"""The conditions of a deployment, as they are kept on its row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

CURRENT = "Current"
"""The last declaration serves."""
READY = "Ready"
"""A request is answered, or held with hope."""
ROLLED_BACK = "RolledBack"
"""The reason why a deployment is not current when its new revision was given up."""


def condition(
    kind: str, reason: str, message: str, now: datetime, *, status: bool
) -> dict[str, Any]:
    """One that begins now."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "since": now.isoformat(),
    }


def replaced(former: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """`former` with `new` in the place of the one of its type.

    What did not change stays as it was; a condition whose status stays keeps its time.
    """
    old = next((one for one in former if one["type"] == new["type"]), None)
    if old is None:
        return [*former, new]
    if (old["status"], old["reason"]) == (new["status"], new["reason"]):
        return list(former)
    since = old["since"] if old["status"] == new["status"] else new["since"]
    return [{**new, "since": since} if one is old else one for one in former]
