"""The platform itself: what was used of it, and its version."""

from __future__ import annotations

from tidegate.protocol.resources.base import Resource
from tidegate.spec import Mode


class UsageView(Resource):
    deployment: str
    mode: Mode
    requests: int
    prompt_tokens: int
    completion_tokens: int


class VersionView(Resource):
    version: str
