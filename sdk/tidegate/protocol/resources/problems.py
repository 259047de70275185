"""How an error is told: RFC 9457 problems."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tidegate.protocol.resources.base import Resource


class ProblemIssue(Resource):
    field: str
    value: Any = None
    message: str


class Problem(Resource):
    """RFC 9457 problem details, with media type `application/problem+json`."""

    type: str = Field(description="`urn:tidegate:problem:<code>`")
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    issues: list[ProblemIssue] = Field(default=[])
    request_id: str | None = None
