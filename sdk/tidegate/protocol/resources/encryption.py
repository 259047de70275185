"""What is sealed under which key, and the pass that puts it under the newest one."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tidegate.protocol.resources.base import Request, Resource


class KeyUse(Resource):
    """How much is sealed under a key."""

    key: str | None = Field(description="null: plain, from before encryption")
    objects: int
    rows: int


class EncryptionView(Resource):
    keys: list[str] = Field(description="those given, the newest last")
    newest: str | None = Field(description="the one that seals; null when encryption is off")
    required: bool = Field(description="what is not sealed is refused")
    running: bool = False
    started_at: datetime | None = Field(default=None, description="of the pass, if any")
    finished_at: datetime | None = None
    rewrapped: int = Field(default=0, description="rows and objects put under the newest key")
    failed: int = 0
    errors: list[str] = Field(default=[])
    uses: list[KeyUse] = Field(default=[])

    @property
    def seen(self) -> int:
        """Rows and objects that the pass has looked at."""
        return self.failed + sum(use.objects + use.rows for use in self.uses)


class EncryptionPass(Request):
    rewrap: bool = Field(description="put everything under the newest key, not only count it")
