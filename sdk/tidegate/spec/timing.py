"""The times in a declaration of scaling: how long to wait, and when a minimum begins."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PlainValidator, StringConstraints, WithJsonSchema

LONGEST_IDLE_S = 86_400
CRON_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_CRON_ITEM = re.compile(r"^[0-9A-Za-z*/,#-]+$")


def _idle_timeout(value: Any) -> float | Literal["auto"]:
    """Seconds as number or text, or `auto`."""
    if value == "auto":
        return "auto"
    try:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_IDLE_S:
        raise ValueError(f"must be seconds from 0 to {LONGEST_IDLE_S}, or 'auto'")
    return seconds


IdleTimeout = Annotated[
    float | Literal["auto"],
    PlainValidator(_idle_timeout),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": LONGEST_IDLE_S},
                {"type": "string", "enum": ["auto"]},
            ]
        }
    ),
]


def _five_fields(value: str) -> str:
    parts = value.split()
    if len(parts) != len(CRON_FIELDS) or not all(map(_CRON_ITEM.match, parts)):
        raise ValueError(f"must be five fields ({', '.join(CRON_FIELDS)}), as in '0 8 * * 1-5'")
    return value


Cron = Annotated[str, StringConstraints(max_length=128), AfterValidator(_five_fields)]
