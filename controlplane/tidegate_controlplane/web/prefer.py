"""`Prefer: wait=N`: how long a caller is willing to wait (RFC 7240)."""

from __future__ import annotations

from tidegate_controlplane.errors import BadRequest

SCHEMA = {"type": "string", "pattern": "^wait=[1-9][0-9]{0,2}$"}
"""What the header looks like, for the OpenAPI document."""


def wait_s(header: str | None, most_s: float) -> float | None:
    """The seconds asked for, at most `most_s`; None when the header does not ask.

    Raises BadRequest when N is not a whole number of at least one second.
    """
    for preference in (header or "").split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "wait":
            return min(_seconds(value.strip().strip('"')), most_s)
    return None


def _seconds(value: str) -> float:
    if not (value.isascii() and value.isdecimal() and 0 < len(value) <= 9 and int(value) >= 1):
        raise BadRequest(
            f"Prefer: wait takes a whole number of seconds from 1, got {value[:32]!r}",
            param="Prefer",
        )
    return float(value)
