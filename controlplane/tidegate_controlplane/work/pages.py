"""Cursors of the data plane: the id of the last row that was seen."""

from __future__ import annotations

from tidegate_controlplane.errors import BadRequest


def check_cursor(after: str | None, prefix: str) -> str | None:
    """`after` itself; BadRequest unless it looks like an id of the kind that is listed."""
    if after is not None and not after.startswith(f"{prefix}_"):
        raise BadRequest(
            f"after: expected the id of the last item of the page before, such as {prefix}_01…; "
            f"got {after[:64]!r}",
            param="after",
        )
    return after
