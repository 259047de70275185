"""API keys, and what they may do."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.protocol.resources.base import Request, Resource


class KeyRole(StrEnum):
    ADMIN = "admin"
    """Everything, keys included."""
    INFERENCE = "inference"
    """The data plane only: `/v1`."""


class ApiKeyRequest(Request):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: KeyRole = KeyRole.INFERENCE
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = 60
    """None for no limit."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = 100_000
    """None for no limit."""


class ApiKeyView(Resource):
    id: str
    name: str
    role: KeyRole
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None = None


class ApiKeyCreated(ApiKeyView):
    key: str = Field(description="the secret, shown this once")
