"""The caller of a request, once authenticated."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.protocol.resources import KeyRole


@dataclass(frozen=True)
class Principal:
    """One API key, as the rest of the control plane sees it."""

    key_id: str
    project_id: str
    name: str
    role: KeyRole
    requests_per_minute: int | None
    """None for no limit."""
    tokens_per_minute: int | None
